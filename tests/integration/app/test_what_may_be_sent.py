"""One table of what may not be sent, by every way there is: the same rules, in the same words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import click
import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from starlette.testclient import TestClient

from jobbridge import Celery, CeleryJobRunner, tenant_context
from jobbridge.cli.enqueue import command as enqueue_command
from jobbridge.core.access import Role
from jobbridge.core.tenant_names import tenant_named
from jobbridge.dashboard.application import make_dashboard
from jobbridge.errors import UnsupportedOption
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore

MODULE = """
from jobbridge import Celery

app = Celery("NAME")

@app.task(name="may.noop", shared=False)
def noop(*args, **kwargs):
    pass
"""

Options = dict[str, Any]
Way = Callable[[Options], object]


class Refusal(Exception):
    """What a way that raises nothing of ours said."""


@pytest.fixture(scope="module")
def app(postgres: Any, migrated_template: str) -> Iterator[Celery]:
    url = postgres.create_database(f"test_may_{uuid4().hex}", template=migrated_template)
    app = Celery("may", settings=load_settings({"DATABASE_URL": url}), set_as_current=False)

    @app.task(name="may.noop", shared=False)
    def noop(*args: Any, **kwargs: Any) -> None: ...

    app.finalize()
    yield app
    app.close()


@pytest.fixture(scope="module")
def client(app: Celery) -> TestClient:
    token, _ = AccessStore(app.database).create("may", Role.OPERATOR)
    headers = {"authorization": f"Bearer {token}"}
    return TestClient(make_dashboard(app), base_url="https://jobs.example", headers=headers)


def refused_by_api(client: TestClient, path: str, body: Options) -> object:
    answer = client.post(f"/api/v1{path}", json=body)
    if answer.status_code >= 400:
        assert answer.status_code in (400, 422), answer.text
        raise Refusal(answer.json().get("detail", answer.text))
    return answer


def by_sql(app: Celery, options: Options, function: str = "jobbridge.enqueue") -> object:
    given = sql.SQL("").join(sql.SQL(", {} => %s").format(sql.Identifier(name)) for name in options)
    query = sql.SQL("SELECT jobbridge.enqueue('may.noop'{})").format(given)
    with app.database.connection() as connection:
        try:
            return connection.execute(query, list(options.values())).fetchone()
        except psycopg.errors.InvalidParameterValue as error:
            raise Refusal(f"{error.diag.message_primary} {error.diag.message_hint}") from error


def by_cli(app: Celery, options: Options) -> object:
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobbridge.cli.enqueue.load_app", lambda name: app)
        return enqueue_command.main(["may.noop", *given], standalone_mode=False)


def in_context(app: Celery, options: Options) -> object:
    rest = dict(options)
    with tenant_context(rest.pop("tenant", "nobody")):
        return app.tasks["may.noop"].apply_async(**rest)


def in_bulk(app: Celery, options: Options) -> object:
    with app.bulk():
        return app.tasks["may.noop"].apply_async(**options)


@pytest.fixture(scope="module")
def ways(app: Celery, client: TestClient) -> dict[str, Way]:
    task, runner = app.tasks["may.noop"], CeleryJobRunner(app)
    return {
        "apply_async": lambda options: task.apply_async(**options),
        "signature": lambda options: task.s().set(**options).apply_async(),
        "chain": lambda options: (task.si().set(**options) | task.si()).apply_async(),
        "group": lambda options: jobbridge_group(task.si().set(**options), task.si()),
        "send_task": lambda options: app.send_task("may.noop", **options),
        "another name": lambda options: app.send_task("not.here", **options),
        "Temporal": lambda options: task.apply_async(engine="temporal", **options),
        "untracked": lambda options: task.apply_async(track=False, **options),
        "bulk": lambda options: in_bulk(app, options),
        "tenant_context": lambda options: in_context(app, options),
        "schedule_job": lambda options: runner.schedule_job("may.noop", [1], options),
        "enqueue_many": lambda options: runner.enqueue_many("may.noop", [[1], [2]], options),
        "schedules": lambda options: runner.schedule_recurring_job("may.noop", [1], "24 hours", options),
        "API": lambda options: refused_by_api(client, "/jobs", {"task": "may.noop", **options}),
        "CLI": lambda options: by_cli(app, options),
        "SQL": lambda options: by_sql(app, options),
        "SQL, Temporal": lambda options: by_sql(app, {"engine": "temporal", **options}),
    }


def jobbridge_group(*members: Any) -> object:
    from celery import group

    return group(*members).apply_async()


WAYS = (
    "apply_async", "signature", "chain", "group", "send_task", "another name", "Temporal", "untracked", "bulk",
    "tenant_context", "schedule_job", "enqueue_many", "schedules", "API", "CLI", "SQL", "SQL, Temporal",
)  # fmt: skip

#: Of these each way says it in the same words.
REFUSED: tuple[tuple[Options, str], ...] = (
    ({"tenant": "acme\u200b"}, r"'acme\u200b' cannot be a tenant: nobody sees its character U+200B."),
    ({"tenant": "\u202eemca"}, r"'\u202eemca' cannot be a tenant: nobody sees its character U+202E."),
    ({"tenant": "acme "}, "'acme ' cannot be a tenant: it begins or ends with a blank."),
    ({"tenant": "ac\nme"}, "cannot be a tenant: nobody sees its character U+000A."),
    ({"tenant": "ac\u00a0me"}, r"'ac\xa0me' cannot be a tenant: its character U+00A0 looks like a blank, and is none."),
    ({"tenant": "\u0301acme"}, "cannot be a tenant: it begins with a mark that belongs to a letter before it."),
    ({"tenant": "\uff41cme"}, "cannot be a tenant: it is another form of 'acme', and looks like that."),
    ({"tenant": "x" * 256}, "more than 255 characters"),
    ({"tenant": "\U000e0041acme"}, r"'\U000e0041acme' cannot be a tenant: nobody sees its character U+E0041."),
    ({"queue": "w1.celery.pidbox"}, "'w1.celery.pidbox' is one of Celery's remote control, and takes no jobs."),
    ({"queue": "celeryev"}, "'celeryev' is one of Celery's remote control, and takes no jobs."),
    ({"queue": "celeryev.1234"}, "takes no jobs."),
    ({"priority": 10}, "priority is 10."),
    ({"priority": -1}, "priority is -1."),
)  # fmt: skip

#: A model or an option's type is asked before, and says it in its own words.
IN_OWN_WORDS = {("API", "priority"), ("CLI", "priority"), ("API", "tenant")}


def stored(app: Celery) -> int:
    with app.database.connection() as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM jobbridge_broker.messages)"
            " + (SELECT count(*) FROM job_schedules)"
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("way", WAYS)
def test_what_may_not_be_sent_is_refused_by_every_way(app: Celery, ways: dict[str, Way], way: str) -> None:
    before = stored(app)
    for options, told in REFUSED:
        (name,) = options
        with pytest.raises((UnsupportedOption, Refusal, click.UsageError)) as refused:
            ways[way](options)
        text = str(refused.value)
        if (way, name) not in IN_OWN_WORDS:
            assert told in text, (way, options, text)
        assert stored(app) == before, (way, options)


@pytest.mark.parametrize("way", sorted({*WAYS} - {"schedules", "another name", "untracked"}))
def test_a_tenant_is_the_same_however_its_accents_are_spelt(
    app: Celery, ways: dict[str, Way], way: str
) -> None:
    name = f"Café {way}"

    ways[way]({"tenant": unicodedata.normalize("NFD", name)})

    with app.database.connection() as connection:
        assert connection.execute("SELECT FROM jobs WHERE tenant = %s", [name]).fetchall(), way


#: All characters but those of large alphabets that are alike (Han, Hangul, private ones), what nobody has assigned, and
#: forms of the quotation mark and the backslash, which Python writes in its own way.
CODES = [
    code
    for first, last in ((0x1, 0x33FF), (0xA000, 0xABFF), (0xD7A4, 0xD7FF), (0xE000, 0xE0FF), (0xF800, 0x16FFF),
                        (0x1B000, 0x1FFFF), (0xE0000, 0xE01EF))
    for code in range(first, last + 1)
    if unicodedata.category(chr(code)) != "Cn" and code not in (0xFE68, 0xFF07, 0xFF3C)
]  # fmt: skip


def test_sql_says_of_every_character_what_python_says(app: Celery) -> None:
    """All that a name can begin, end, or go on with; what came after Unicode 14 neither has to know."""
    with app.database.connection() as connection:
        connection.execute("""
            CREATE FUNCTION pg_temp.said(name text) RETURNS text LANGUAGE plpgsql AS $$
            BEGIN RETURN 'is ' || jobbridge.tenant_named(name);
            EXCEPTION WHEN invalid_parameter_value THEN RETURN SQLERRM; END $$
        """)
        names = [name for code in CODES for name in (f"{chr(code)}a", f"a{chr(code)}")]
        with connection.cursor() as cursor:
            cursor.execute("SELECT name, pg_temp.said(name) FROM unnest(%s::text[]) AS name", [names])
            by_database = dict(cursor.fetchall())

    differing = {
        name: (by_database[name], said) for name in names if (said := by_python(name)) != by_database[name]
    }

    assert not differing, (len(differing), list(differing.items())[:20])


def by_python(name: str) -> str:
    try:
        return f"is {tenant_named(name)}"
    except UnsupportedOption as error:
        return str(error)


@pytest.mark.parametrize(
    ("data", "tenant"),
    [
        ({"tenantId": "", "tenant_id": "acme"}, "acme"),
        ({"tenantId": None, "tenant": "acme"}, "acme"),
        ({"tenantId": 17}, "17"),
        ({"tenantId": ""}, "00000000-0000-0000-0000-000000000000"),
        ([1], "00000000-0000-0000-0000-000000000000"),
    ],
)
def test_the_tenant_in_datas_fields_is_found_as_python_finds_it(app: Celery, data: Any, tenant: str) -> None:
    (job_id,) = by_sql(app, {"data": Jsonb(data)})  # type: ignore[misc]

    row = app.jobs.find(job_id)
    assert row is not None
    assert row.tenant == tenant


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"data": Jsonb({"tenantId": "acme\u200b"})}, r"nobody sees its character U\+200B"),
        ({"run_at": "infinity"}, "run_at is"),
        ({"run_at": "0001-01-01 BC"}, "run_at is"),
        ({"expires_at": "10000-01-01"}, "expires_at is"),
        ({"metadata": Jsonb([1])}, "metadata is"),
    ],
)
def test_what_only_sql_could_say_is_refused_too(app: Celery, options: Options, told: str) -> None:
    before = stored(app)

    with pytest.raises(Refusal, match=told):
        by_sql(app, options)

    assert stored(app) == before


def test_sql_refuses_what_no_setting_allows_and_says_its_size(app: Celery) -> None:
    before = stored(app)
    told = r"The message for 'may.noop' is 256\.5 MB, and JOB_RUNNER_PAYLOAD_LIMIT_MB allows 256 MB"

    with (
        app.database.connection() as connection,
        pytest.raises(psycopg.errors.InvalidParameterValue, match=told),
    ):
        connection.execute("SELECT jobbridge.enqueue('may.noop', jsonb_build_array(repeat('x', 256500000)))")

    assert stored(app) == before

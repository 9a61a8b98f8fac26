"""`JOBBRIDGE_SCHEMA`: a stranger has one of our names in public, and all works in a schema of our own beside him.

Nothing of ours is in public here, so a statement that is sent past the cursors which render it fails.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any
from uuid import UUID

import psycopg
import pytest
from celery import chord
from psycopg.types.json import Jsonb
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

import jobbridge
from jobbridge.app.schedules.firing import ScheduleFirer
from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dev.postgres import PostgresServer
from jobbridge.diagnosis.explain import explain
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.schema.migrate import migrate
from tests.forked import run_python
from tests.parity import durable_tasks  # noqa: F401  # its tasks are the app's
from tests.parity.conftest import World, make_world
from tests.parity.rules_tasks import let_go
from tests.support import Looking, clean_environment, wait_until

TIMEOUT = 60
SCHEMA = "background_jobs"
_PAGES = [
    "/",
    "/jobs",
    "/queues/celery",
    "/schedules",
    "/workers",
    "/tenants",
    "/dead",
    "/health",
    "/access",
    "/audit",
    "/api/v1/jobs",
]
_IN_PUBLIC = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"


def command(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    done = run_python(["-m", "jobbridge.cli", *arguments], env=clean_environment(environment))
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def run(environment: dict[str, str], *arguments: str) -> str:
    code, told = command(environment, *arguments)
    assert code == 0, told
    return told


@pytest.fixture(scope="module", params=[Engine.CELERY, Engine.TEMPORAL], ids=str)
def beside(
    request: pytest.FixtureRequest, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A world in a database of which a stranger has `public.job_events`, with one worker."""
    engine = Engine(request.param)
    url = postgres.create_database(f"beside_{engine}_{uuid.uuid4().hex[:8]}")
    with psycopg.connect(url, autocommit=True) as stranger:
        stranger.execute(
            "CREATE TABLE public.job_events (theirs text); INSERT INTO public.job_events VALUES ('kept')"
        )
    migrate(f"{url}?schema={SCHEMA}")
    folder = tmp_path_factory.mktemp(f"beside-{engine}")
    with ExitStack() as started:
        queue = f"beside-{uuid.uuid4().hex[:8]}"
        world = make_world(engine, url, folder, queue, request, started, JOBBRIDGE_SCHEMA=SCHEMA)
        world.looking = started.enter_context(closing(Looking(f"{url}?options=-csearch_path%3D{SCHEMA}")))
        world.worker("-P", "prefork")
        yield world
        with psycopg.connect(url) as stranger:
            assert stranger.execute("SELECT theirs FROM public.job_events").fetchall() == [("kept",)]
            assert stranger.execute(_IN_PUBLIC).fetchall() == [("job_events",)]


def test_the_clash_is_told_with_the_way_out_and_that_is_one(empty_database_url: str) -> None:
    environment = {"DATABASE_URL": empty_database_url}
    with psycopg.connect(empty_database_url, autocommit=True) as stranger:
        stranger.execute("CREATE TABLE public.job_events (theirs text)")

        code, told = command({**environment, "JOBBRIDGE_SCHEMA": "public"}, "migrate")
        assert code != 0
        assert "the table public.job_events. Nothing was changed." in told
        assert "JOBBRIDGE_SCHEMA" in told
        assert stranger.execute(_IN_PUBLIC).fetchall() == [("job_events",)]

        run({**environment, "JOBBRIDGE_SCHEMA": SCHEMA}, "migrate")
        assert stranger.execute(_IN_PUBLIC).fetchall() == [("job_events",)]


def test_jobs_run_and_what_waits_for_them_does_too(beside: World) -> None:
    add, total = beside.task("add"), beside.task("total")
    result = add.delay(1, 2)
    assert result.get(timeout=TIMEOUT) == 3
    assert beside.row(result.id)["runner_type"] == beside.engine.value
    assert chord([add.s(1, 1), add.s(2, 2)])(total.s()).get(timeout=TIMEOUT) == 6
    assert beside.app.enqueue("parity.greet", {"name": "Ann"}, tenant="acme").result.get(timeout=TIMEOUT)


def test_a_durable_job_sleeps_and_waits_for_an_event_that_sql_sends(beside: World) -> None:
    slept = beside.app.tasks["parity.durable.sleeps"].delay({"seconds": 1})
    waits = beside.app.tasks["parity.durable.waits"].delay({})
    beside.wait_for_status(waits.id, "waiting")
    with psycopg.connect(beside.database_url, autocommit=True) as outside:
        sent = outside.execute(
            "SELECT jobbridge.send_event('approval', %s, job_id => %s)", [Jsonb({"by": "Ann"}), waits.id]
        ).fetchone()
    assert sent == ("delivered",)
    assert waits.get(timeout=TIMEOUT) == [{"by": "Ann"}]
    assert slept.get(timeout=TIMEOUT)["starts"] == 2


def test_rules_hold_and_let_go(beside: World) -> None:
    results = [beside.task("per_customer").delay("a", number) for number in range(2)]
    wait_until(lambda: beside.lines(results[0], "begun"), timeout=TIMEOUT)
    job = beside.app.jobs.find(UUID(results[1].id))
    assert job is not None
    assert [reason.code for reason in explain(beside.app, job).reasons] == ["held"]
    for result in results:
        let_go(beside, result)
        assert result.get(timeout=TIMEOUT) == "a"


def test_sql_enqueues(beside: World) -> None:
    with psycopg.connect(beside.database_url) as outside:
        [(sent,)] = outside.execute(
            "SELECT jobbridge.enqueue('parity.add', '[2, 3]', engine => %s)", [beside.engine.value]
        ).fetchall()
    assert beside.app.AsyncResult(str(sent)).get(timeout=TIMEOUT) == 5


def test_a_schedule_fires(beside: World) -> None:
    made = beside.app.schedules.create("parity.echo", "1 second", {"value": 1}, name="clock", overlap="allow")
    firer = ScheduleFirer(beside.app)

    def fired() -> Any:
        if beside.engine is Engine.CELERY:
            firer.fire_due()
        where = "metadata -> 'schedule' ->> 'id' = %s AND status = 'completed'"
        return beside.rows(where, str(made.schedule_id))

    assert wait_until(fired, timeout=TIMEOUT, message="it fires")
    beside.app.schedules.delete("clock")


@pytest.mark.parametrize("kind", ["psycopg", "sqlalchemy", "our own"])
def test_a_callers_transaction_sends(beside: World, kind: str) -> None:
    """Also what he says himself there is left alone."""
    theirs = "SELECT theirs FROM public.job_events"
    with ExitStack() as opened:
        caller: Any
        if kind == "psycopg":
            caller = opened.enter_context(psycopg.connect(beside.database_url))
            assert caller.execute(theirs).fetchall() == [("kept",)]
        elif kind == "sqlalchemy":
            engine = create_engine(beside.app.database.url)
            opened.callback(engine.dispose)
            caller = opened.enter_context(Session(engine))
        else:
            caller = opened.enter_context(beside.app.database.transaction())
        with jobbridge.transaction(caller, app=beside.app):
            sent = [beside.task("add").delay(1, 1), beside.task("add").apply_async((2, 2), countdown=1)]
            handle = beside.app.enqueue("parity.greet", {"name": "Bob"}, tenant="acme")
        assert beside.rows("job_id = ANY(%s::uuid[])", [each.id for each in sent]) == []
        if kind == "psycopg":
            assert caller.execute(theirs).fetchall() == [("kept",)]
        if kind != "our own":
            caller.commit()
    assert [each.get(timeout=TIMEOUT) for each in sent] == [2, 4]
    assert handle.result.get(timeout=TIMEOUT)


def test_people_see_it(beside: World) -> None:
    result = beside.task("add").delay(20, 22)
    assert result.get(timeout=TIMEOUT) == 42
    assert result.id in run(beside.environment, "jobs", "list", "--json")
    run(beside.environment, "queues", "list")
    run(beside.environment, "schedules", "list")
    assert (
        f"database_schema {SCHEMA} environment JOBBRIDGE_SCHEMA" in command(beside.environment, "doctor")[1]
    )

    token, _ = AccessStore(beside.app.database).create(str(uuid.uuid4()), Role.ADMIN)
    client = TestClient(make_dashboard(beside.app), base_url="https://jobs.example")
    client.headers["authorization"] = f"Bearer {token}"
    for path in [f"/jobs/{result.id}", *_PAGES]:
        page = client.get(path)
        assert page.status_code == 200, (path, page.text)


def test_a_process_that_means_another_schema_is_told_where_the_tables_are(beside: World) -> None:
    for schema in ("public", "elsewhere"):
        environment = {"DATABASE_URL": beside.database_url, "JOBBRIDGE_SCHEMA": schema}
        for arguments in (["jobs", "list"], ["migrate"], ["migrate", "--down", "base", "--force"]):
            code, told = command(environment, *arguments)
            assert code != 0, told
            assert f"JOBBRIDGE_SCHEMA={SCHEMA}" in told
    assert beside.rows() is not None

"""What a caller sees when Postgres cannot take a job: one family, ours and kombu's, however it was sent."""

from __future__ import annotations

import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from celery import chain, chord, group
from celery.events.event import get_exchange as event_exchange
from kombu import Queue
from kombu.exceptions import OperationalError
from psycopg import sql

from jobbridge import Celery, Outcome
from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import DatabaseError, DatabaseUnavailable
from jobbridge.runners.factory import JobRunnerFactory
from jobbridge.settings import load_settings

Admin = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def admin(postgres: PostgresServer, database_url: str) -> Iterator[Admin]:
    with psycopg.connect(postgres.url(database_url.rsplit("/", 1)[1]), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        yield connection


@pytest.fixture
def role(postgres: PostgresServer) -> Iterator[str]:
    """Who may everything, and is no superuser: limits hold for it."""
    role = f"sender_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret' IN ROLE jobbridge").format(sql.Identifier(role))
        )
        yield role


@pytest.fixture
def senders_url(database_url: str, postgres: PostgresServer, role: str) -> str:
    return f"postgresql://{role}:secret@127.0.0.1:{postgres.port}/{database_url.rsplit('/', 1)[1]}"


@pytest.fixture(params=["celery", "temporal"])
def app(request: pytest.FixtureRequest, senders_url: str) -> Iterator[Celery]:
    app = sender(senders_url, engine=request.param)
    yield app
    app.close()


def sender(url: str, *, engine: str = "celery") -> Celery:
    settings = {"DATABASE_URL": url, "JOB_RUNNER_TYPE": engine, "TEMPORAL_ADDRESS": "127.0.0.1:1"}
    app = Celery("sender", settings=load_settings(settings))
    app.conf.task_publish_retry = False

    @app.task(name="sender.noop", shared=False)
    def noop(*args: Any) -> None: ...

    return app


# -- what may be wrong


@contextmanager
def away(admin: Admin, role: str) -> Iterator[None]:
    _alter_role(admin, role, "NOLOGIN")
    yield
    _alter_role(admin, role, "LOGIN")


@contextmanager
def read_only(admin: Admin, role: str) -> Iterator[None]:
    _alter_role(admin, role, "SET default_transaction_read_only = on")
    yield
    _alter_role(admin, role, "RESET default_transaction_read_only")


@contextmanager
def out_of_connections(admin: Admin, role: str) -> Iterator[None]:
    _alter_role(admin, role, "CONNECTION LIMIT 0")
    yield
    _alter_role(admin, role, "CONNECTION LIMIT -1")


def _alter_role(admin: Admin, role: str, change: LiteralString) -> None:
    admin.execute(sql.SQL("ALTER ROLE {} " + change).format(sql.Identifier(role)))
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])


def refusing_with(state: str) -> Callable[[Admin, str], AbstractContextManager[None]]:
    @contextmanager
    def trouble(admin: Admin, role: str) -> Iterator[None]:
        admin.execute(
            sql.SQL(
                "CREATE FUNCTION public.trouble() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN RAISE EXCEPTION ''for a test'' USING ERRCODE = ''" + state + "''; END'"  # type: ignore[arg-type]  # of the lists below
            )
        )
        for table in ("public.jobs", "public.job_schedules", "jobbridge_broker.messages"):
            admin.execute(
                f"CREATE TRIGGER trouble BEFORE INSERT ON {table} EXECUTE FUNCTION public.trouble()".encode()
            )
        yield
        admin.execute("DROP FUNCTION public.trouble() CASCADE")

    return trouble


#: Those that pass.
TROUBLES = {
    "read only": read_only,
    "out of connections": out_of_connections,
    **{state: refusing_with(state) for state in ("40P01", "53100", "55P03", "57014")},
}


# -- ways to send


def by_delay(app: Celery) -> None:
    app.tasks["sender.noop"].delay()


def by_name(app: Celery) -> None:
    app.send_task("sender.noop", countdown=60)


def without_a_row(app: Celery) -> None:
    app.tasks["sender.noop"].apply_async(track=False, engine="celery")


def with_a_key(app: Celery) -> None:
    app.tasks["sender.noop"].apply_async(singleton_key="one")


def by_group(app: Celery) -> None:
    group(app.tasks["sender.noop"].si() for _ in range(3)).apply_async()


def by_chord(app: Celery) -> None:
    chord([app.tasks["sender.noop"].si() for _ in range(3)])(app.tasks["sender.noop"].s())


def by_chain(app: Celery) -> None:
    chain(app.tasks["sender.noop"].si(), app.tasks["sender.noop"].si()).delay()


def in_bulk(app: Celery) -> None:
    with app.bulk():
        app.tasks["sender.noop"].delay()


def by_runner(app: Celery) -> None:
    JobRunnerFactory(app).get_runner().schedule_job("sender.noop")


def by_runner_later(app: Celery) -> None:
    JobRunnerFactory(app).get_runner().schedule_job_at(
        "sender.noop", None, datetime.now(UTC) + timedelta(hours=1)
    )


def recurring(app: Celery) -> None:
    JobRunnerFactory(app).get_runner().schedule_recurring_job("sender.noop", None, "1 hour")


def many(app: Celery) -> None:
    JobRunnerFactory(app).get_runner().enqueue_many("sender.noop", [None] * 3)


def as_a_parent(app: Celery) -> None:
    JobRunnerFactory(app).get_runner().fan_out("sender.noop", [1, 2])


WAYS = [
    by_delay,
    by_name,
    without_a_row,
    with_a_key,
    by_group,
    by_chord,
    by_chain,
    in_bulk,
    by_runner,
    by_runner_later,
    recurring,
    many,
    as_a_parent,
]


def test_a_caller_catches_one_family_however_it_sends(app: Celery, admin: Admin, role: str) -> None:
    app.tasks["sender.noop"].delay()  # what it has open is open
    others = {}
    for trouble, passes in ((refusing_with("40001"), True), (refusing_with("42501"), False), (away, False)):
        with trouble(admin, role):
            for way in WAYS:
                error = raised_by(way, app)
                if not _is_of_the_family(error, passes=passes):
                    others[trouble.__name__, way.__name__] = f"{type(error).__name__}: {error}"
    assert others == {}
    app.tasks["sender.noop"].delay()


COMMANDS: dict[str, Callable[[Celery], Any]] = {
    "revoke": lambda app: app.AsyncResult(str(uuid.uuid4())).revoke(),
    "revoke many": lambda app: app.control.revoke([str(uuid.uuid4())], terminate=True),
    "revoke by stamps": lambda app: app.control.revoke_by_stamped_headers({"customer": "a"}),
    "inspect": lambda app: app.control.inspect(timeout=0.1).ping(),
    "broadcast": lambda app: app.control.broadcast("ping"),
    "rate limit": lambda app: app.control.rate_limit("sender.noop", "1/s"),
    "purge": lambda app: app.control.purge(),
}


def test_a_command_to_the_workers_fails_by_the_same_family(app: Celery, admin: Admin, role: str) -> None:
    others = {}
    with away(admin, role):
        for name, give in COMMANDS.items():
            error = raised_by(give, app)
            if not _is_of_the_family(error, passes=True):
                others[name] = f"{type(error).__name__}: {error}"
    assert others == {}


def test_a_caller_catches_one_family_whatever_is_wrong(senders_url: str, admin: Admin, role: str) -> None:
    app, others = sender(senders_url), {}
    for name, trouble in TROUBLES.items():
        with trouble(admin, role):
            for way in (by_delay, recurring):
                error = raised_by(way, app)
                if not _is_of_the_family(error, passes=True):
                    others[name, way.__name__] = f"{type(error).__name__}: {error}"
    app.close()
    assert others == {}


def test_celerys_own_policy_tries_again(app: Celery, admin: Admin, role: str) -> None:
    """The sender's retry policy waits for Postgres, as Celery documents it for a broker that is away."""
    app.conf.task_publish_retry = True
    app.conf.task_publish_retry_policy = {"max_retries": 100, "interval_start": 0.05, "interval_max": 0.05}
    with read_only(admin, role):
        back = threading.Timer(0.5, _alter_role, [admin, role, "RESET default_transaction_read_only"])
        back.start()
        sent = app.tasks["sender.noop"].delay()
        back.join()

    assert sent.job.outcome is Outcome.CREATED


def test_a_callers_own_transaction_ends_in_the_family_too(
    app: Celery, senders_url: str, admin: Admin, role: str
) -> None:
    with refusing_with("40001")(admin, role), psycopg.connect(senders_url) as mine, app.transaction(mine):
        error = raised_by(by_delay, app)

    assert _is_of_the_family(error, passes=True)
    assert isinstance(error.__cause__, psycopg.errors.SerializationFailure)


def test_a_job_that_is_sent_stays_sent_when_what_celery_tells_of_it_is_refused(
    app: Celery, admin: Admin
) -> None:
    app.conf.task_send_sent_event = True
    with app.connection_for_write() as connection:
        Queue("watch", event_exchange(connection), routing_key="#")(connection.default_channel).declare()
    admin.execute(
        "CREATE FUNCTION public.trouble() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'for a test' USING ERRCODE = '23514'; END$$"
    )
    admin.execute(
        "CREATE TRIGGER trouble BEFORE INSERT ON jobbridge_broker.messages"
        " FOR EACH ROW WHEN (new.queue = 'watch') EXECUTE FUNCTION public.trouble()"
    )

    sent = app.tasks["sender.noop"].delay()

    assert sent.job.outcome is Outcome.CREATED
    assert admin.execute("SELECT count(*) FROM public.jobs").fetchone() == (1,)


def test_it_crosses_processes(app: Celery, admin: Admin, role: str) -> None:
    with read_only(admin, role):
        error = raised_by(by_delay, app)
    restored = pickle.loads(pickle.dumps(error))

    assert (type(restored), str(restored), restored.hint) == (type(error), str(error), error.hint)


def raised_by(way: Callable[[Celery], None], app: Celery) -> Exception | None:
    try:
        way(app)
    except Exception as error:
        return error
    return None


def _is_of_the_family(error: Exception | None, *, passes: bool) -> bool:
    return (
        isinstance(error, DatabaseError)
        and isinstance(error, OperationalError)
        and bool(error.hint)
        and (isinstance(error, DatabaseUnavailable) or not passes)
    )

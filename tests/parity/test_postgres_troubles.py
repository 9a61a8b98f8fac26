"""Postgres refuses, cancels, and is set up badly, while a worker runs: no job is lost or run twice, and it lives on."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from jobbridge.dev.postgres import PostgresServer
from jobbridge.settings import load_settings
from tests.parity.conftest import World
from tests.parity.tasks import make_app
from tests.pgbouncer import run_pgbouncer
from tests.support import clean_environment, wait_until, worker_process

JOBS = 24
#: How long a trouble lasts, in seconds.
LONG = 3.0

_MINE = "datname = current_database() AND application_name LIKE 'jobbridge worker %'"


@pytest.fixture
def admin(postgres: PostgresServer, database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    name = database_url.rsplit("/", 1)[1]
    with psycopg.connect(postgres.url(name), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        yield connection


@pytest.fixture
def role(postgres: PostgresServer) -> Iterator[str]:
    """Who owns nothing, may everything, and is no superuser: limits hold for it."""
    role = f"worker_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret' IN ROLE jobbridge").format(sql.Identifier(role))
        )
        yield role


@pytest.fixture
def database_url(database_url: str, postgres: PostgresServer, role: str) -> str:
    return f"postgresql://{role}:secret@127.0.0.1:{postgres.port}/{database_url.rsplit('/', 1)[1]}"


Admin = psycopg.Connection[tuple[object, ...]]
Trouble = Callable[[Admin, str], None]


def connections_are_used_up(admin: Admin, role: str) -> None:
    named = sql.Identifier(role)
    admin.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(named))
    _for_a_while(
        lambda: admin.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {_MINE} "
            "AND application_name LIKE '% jobs'"
        )
    )
    admin.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(named))


def the_server_is_read_only(admin: Admin, role: str) -> None:
    admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    admin.execute("SELECT pg_reload_conf()")
    try:
        _for_a_while(lambda: None)
    finally:
        admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        admin.execute("SELECT pg_reload_conf()")


def statements_are_cancelled(admin: Admin, role: str) -> None:
    _for_a_while(lambda: admin.execute(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {_MINE}"))


def _for_a_while(again_and_again: Callable[[], object]) -> None:
    over = threading.Event()
    timer = threading.Timer(LONG, over.set)
    timer.start()
    while not over.wait(0.01):
        again_and_again()


@pytest.mark.parametrize(
    "trouble", [connections_are_used_up, the_server_is_read_only, statements_are_cancelled]
)
def test_a_worker_bears_it(own_world: World, admin: Admin, role: str, trouble: Trouble) -> None:
    sent = [own_world.task("takes").delay(0.2) for _ in range(JOBS)]
    worker = own_world.worker("-P", "prefork")
    wait_until(lambda: own_world.rows("status = 'completed'"))

    trouble(admin, role)

    for each in sent:
        own_world.wait_for_status(each.id, "completed", timeout=60)
    assert [len(own_world.lines(each, "takes")) for each in sent] == [1] * JOBS
    assert worker.is_running


def test_what_is_set_for_the_role_hurts_nobody(own_world: World, admin: Admin, role: str) -> None:
    for name, value in {
        "statement_timeout": "300ms",
        "lock_timeout": "300ms",
        "idle_in_transaction_session_timeout": "300ms",
        "idle_session_timeout": "300ms",
        "default_transaction_isolation": "serializable",
    }.items():
        admin.execute(
            sql.SQL("ALTER ROLE {} SET {} = {}").format(sql.Identifier(role), sql.Identifier(name), value)
        )
    worker = own_world.worker("-P", "prefork")

    sent = [own_world.task("takes").delay(0.5) for _ in range(8)]

    for each in sent:
        own_world.wait_for_status(each.id, "completed")
    assert [len(own_world.lines(each, "takes")) for each in sent] == [1] * 8
    assert worker.is_running
    assert "lost" not in worker.log()


def test_pg_stat_activity_says_who_is_who(own_world: World, admin: Admin) -> None:
    own_world.worker("-n", "w1@here", "-P", "threads")
    own_world.wait_for_status(own_world.task("takes").delay(0).id, "completed")

    rows = admin.execute(
        "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"
    ).fetchall()

    names = {name for (name,) in rows}
    assert {f"jobbridge worker w1@here {purpose}" for purpose in ("broker", "jobs", "presence")} <= names
    assert [name for name in names if name and not str(name).startswith("jobbridge ")] == []


_COMMANDS = {
    "celery": ["-m", "celery", "-A", "tests.parity.app", "worker", "-c", "1"],
    "temporal": ["-m", "jobbridge.temporal.worker", "-A", "tests.parity.app", "-c", "1"],
}


def test_a_worker_behind_a_pooler_of_transactions_says_at_start_what_to_use(
    own_world: World, open_folder: Path, postgres: PostgresServer, tmp_path: Path
) -> None:
    name = own_world.database_url.rsplit("/", 1)[1]
    with run_pgbouncer(open_folder, postgres, mode="transaction") as place:
        url = postgres.url(name).replace(f"127.0.0.1:{postgres.port}", place)
        with worker_process(
            _COMMANDS[own_world.engine.value],
            name="pooled",
            log_path=tmp_path / "pooled.log",
            env=clean_environment({**own_world.environment, "DATABASE_URL": url}),
            ready=None,
        ) as worker:
            wait_until(lambda: not worker.is_running, message="it ends")

    assert worker.exit_code == 3
    assert "pool_mode = session" in worker.log()
    assert "Traceback" not in worker.log()


def test_jobs_sent_through_a_pooler_of_transactions_run(
    own_world: World, open_folder: Path, postgres: PostgresServer
) -> None:
    name = own_world.database_url.rsplit("/", 1)[1]
    worker = own_world.worker("-P", "threads")
    with run_pgbouncer(open_folder, postgres, mode="transaction", size=2) as place:
        url = postgres.url(name).replace(f"127.0.0.1:{postgres.port}", place)
        app = make_app(settings=load_settings({**own_world.environment, "DATABASE_URL": url}))
        try:
            sent = [app.tasks["parity.takes"].delay(0) for _ in range(12)]
        finally:
            app.close()
        for each in sent:
            own_world.wait_for_status(each.id, "completed")

    assert [len(own_world.lines(each, "takes")) for each in sent] == [1] * 12
    assert worker.is_running

"""Connections: when Postgres is away, restarts, is not ours, and across forks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from jobbridge.core.events import JobEvent
from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.errors import DatabaseError, DatabaseUnavailable, NotMigrated, SchemaTooNew
from jobbridge.recording import JobRecorder, apply
from jobbridge.store.database import Database
from jobbridge.store.jobs.queries import JobStore
from jobbridge.store.schema.migrate import migrate
from tests.cut_off import SLOW, cut_off_amid
from tests.job_events import SECOND, EventsOf
from tests.proxy import Proxy
from tests.support import CONTRACTED, wait_until

JOB = EventsOf()

MY_BACKENDS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
END_BACKENDS = MY_BACKENDS.replace("SELECT pid", "SELECT pg_terminate_backend(pid)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def outside(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_a_server_that_is_away_is_named_without_the_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        database = Database(f"postgresql://user:secret@127.0.0.1:{port}/ledger")
        with pytest.raises(DatabaseUnavailable) as raised, database.connection():
            pass

    assert "'ledger'" in str(raised.value)
    assert f"127.0.0.1:{port}" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "Check that Postgres runs" in raised.value.hint


def test_a_database_that_does_not_exist_says_what_to_create(empty_database_url: str) -> None:
    url = empty_database_url.rsplit("/", 1)[0] + "/nowhere"

    with pytest.raises(DatabaseUnavailable) as raised, Database(url).connection():
        pass

    assert "nowhere" in str(raised.value)
    assert "Create the database" in raised.value.hint


def test_an_empty_database_wants_to_be_migrated(empty_database_url: str) -> None:
    database = Database(empty_database_url)

    with pytest.raises(NotMigrated) as raised:
        JobStore(database).page()

    assert "jobbridge migrate" in raised.value.hint
    database.close()


@pytest.mark.parametrize(("revision", "error"), [("0000_earlier", NotMigrated), ("9999_later", SchemaTooNew)])
def test_tables_of_another_release_are_not_touched(
    database: Database, outside: psycopg.Connection[Any], revision: str, error: type[Exception]
) -> None:
    outside.execute(
        "UPDATE jobbridge_version SET version_num = %(other)s, revision = %(other)s, serves_since = %(other)s"
        " WHERE version_num LIKE '0%%'",
        {"other": revision},
    )

    with pytest.raises(error, match=revision):
        JobRecorder(database).record(EventsOf().submitted())


def test_a_callers_database_without_our_tables_is_named_too(
    database: Database, empty_database_url: str
) -> None:
    with psycopg.connect(empty_database_url) as caller, pytest.raises(NotMigrated, match=r"public\.jobs"):
        JobRecorder(database).record(EventsOf().submitted(), caller)


def test_a_role_without_rights_hears_what_it_needs(
    database: Database, outside: psycopg.Connection[Any], database_url: str
) -> None:
    role = f"guest_{uuid4().hex[:8]}"
    outside.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON jobbridge_version TO {role}")
    guest = Database(str(make_url(database_url).set(username=role, password="x").render_as_string(False)))

    for refused in (
        lambda: JobStore(guest).page(),
        lambda: JobRecorder(guest).record(EventsOf().submitted()),
    ):
        with pytest.raises(DatabaseError, match="permission denied") as raised:
            refused()
        assert "Grant the role" in raised.value.hint

    guest.close()
    outside.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_whom_the_tables_serve_is_asked_for_now_and_then(
    database_url: str, outside: psycopg.Connection[Any]
) -> None:
    asks, trusts = Database(database_url, check_schema_after=0), Database(database_url)
    for database in (asks, trusts):
        assert JobStore(database).page().jobs == []
    outside.execute(CONTRACTED)

    assert JobStore(trusts).page().jobs == []
    with pytest.raises(SchemaTooNew, match="9999_later"):
        JobStore(asks).page()
    with psycopg.connect(database_url) as caller, pytest.raises(SchemaTooNew), asks.transaction(caller):
        pass

    for database in (asks, trusts):
        database.close()


def test_how_an_attempt_ended_is_written_whomever_the_tables_serve(
    database_url: str, outside: psycopg.Connection[Any]
) -> None:
    database, job = Database(database_url, check_schema_after=0), EventsOf()
    recorder = JobRecorder(database)
    recorder.record(job.submitted())
    recorder.record(job.started())
    outside.execute(CONTRACTED)

    with pytest.raises(SchemaTooNew):
        recorder.record(job.completed())
    assert recorder.record(job.completed(), check_schema=False).applied
    database.close()


def test_pooled_connections_that_the_server_ended_are_replaced_unseen(
    database: Database, outside: psycopg.Connection[Any]
) -> None:
    recorder = JobRecorder(database)
    job = EventsOf()
    recorder.record(job.submitted())
    outside.execute(END_BACKENDS)
    wait_until(lambda: not outside.execute(MY_BACKENDS).fetchall())

    assert recorder.record(job.started()).applied


def test_of_many_that_ended_unheard_one_is_enough(
    database: Database, postgres: PostgresServer, outside: psycopg.Connection[Any]
) -> None:
    with Proxy(postgres.port) as proxy:
        address = f"127.0.0.1:{postgres.port}"
        behind = Database(database.target.url.replace(address, proxy.address))
        with ExitStack() as lent:
            for _ in range(4):
                lent.enter_context(behind.connection())
        proxy.freeze(answers_only=True)  # so they look as if they were there
        outside.execute(END_BACKENDS)
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(behind.run, lambda own: own.execute("SELECT 1").fetchone())
            wait_until(lambda: not outside.execute(MY_BACKENDS).fetchall())
            proxy.thaw()
            assert asked.result(30) == (1,)
        behind.close()


def test_the_books_go_on_when_postgres_is_back(server_folder: Path) -> None:
    folder, job = server_folder / "restarted", EventsOf()
    with run_postgres(folder) as server:
        migrate(server.url())
        recorder = JobRecorder(Database(server.url()))
        recorder.record(job.submitted())

    with pytest.raises(DatabaseUnavailable):
        recorder.record(job.started())

    with run_postgres(folder, port=server.port):
        assert recorder.record(job.started()).applied
        recorder.database.close()


def test_an_event_whose_connection_breaks_is_recorded_once(
    database: Database, outside: psycopg.Connection[Any]
) -> None:
    """The lock makes it certain that the event is on its way when its connection ends."""
    recorder = JobRecorder(database)
    job = EventsOf()
    recorder.record(job.submitted())
    recorder.record(job.started())
    recorded: list[Any] = []
    with outside.transaction():
        outside.execute("SELECT FROM jobs FOR UPDATE")
        thread = threading.Thread(target=lambda: recorded.append(recorder.record(job.completed())))
        thread.start()
        waiting = MY_BACKENDS + " AND wait_event_type = 'Lock'"
        wait_until(lambda: outside.execute(waiting).fetchall(), message="the event waits for the row")
        outside.execute(END_BACKENDS)
    thread.join(20)

    assert [(one.applied, one.status) for one in recorded] == [(True, "completed")]


@pytest.mark.parametrize(
    "life",
    [
        [JOB.submitted()],
        [JOB.submitted(), JOB.accepted()],
        [JOB.submitted(), JOB.started()],
        [JOB.submitted(), JOB.started(), JOB.progressed()],
        [JOB.submitted(), JOB.started(), JOB.submitted(SECOND, retry_of=1)],
        [JOB.submitted(), JOB.started(), JOB.attempt_failed()],
        [JOB.submitted(), JOB.started(), JOB.completed()],
        [JOB.submitted(), JOB.started(), JOB.failed()],
        [JOB.submitted(), JOB.failed(None)],
        [JOB.submitted(), JOB.started(), JOB.requeued()],
        [JOB.submitted(), JOB.started(), JOB.replaced()],
        [JOB.submitted(), JOB.cancelled()],
        [JOB.submitted(), JOB.expired()],
        [JOB.submitted(), JOB.skipped()],
    ],
    ids=lambda life: type(life[-1]).__name__,
)
def test_an_event_whose_answer_was_lost_counts_when_it_is_recorded_again(
    database: Database, life: list[JobEvent]
) -> None:
    recorder = JobRecorder(database)
    assert [recorder.record(event).applied for event in life] == [True] * len(life)

    with database.connection() as connection:
        assert apply(connection, life[-1], is_repeated=True).applied


class TimeIsUp(Exception):
    """As Celery's SoftTimeLimitExceeded: raised by a signal's handler, wherever the process is."""


def test_a_connection_that_is_cut_off_amid_a_statement_is_replaced(
    database: Database, database_url: str
) -> None:
    used: list[psycopg.Connection[Any]] = []

    def work(own: psycopg.Connection[Any]) -> Any:
        used.append(own)
        return own.execute("SELECT 7" if len(used) > 1 else SLOW).fetchone()

    with cut_off_amid(database_url, lambda: used[0].fileno()):
        assert database.run(work) == (7,)
    assert len(used) == 2


@pytest.mark.parametrize("is_in_transaction", [False, True])
def test_a_statement_that_a_signal_interrupts_leaves_no_broken_connection(
    database: Database, outside: psycopg.Connection[Any], is_in_transaction: bool
) -> None:
    def interrupt(*_: object) -> None:
        raise TimeIsUp

    def signal_once_it_sleeps() -> None:
        wait_until(lambda: outside.execute(MY_BACKENDS + " AND wait_event = 'PgSleep'").fetchall())
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=signal_once_it_sleeps)
    lend = database.transaction if is_in_transaction else database.connection
    thread.start()
    try:
        with pytest.raises(TimeIsUp), lend() as connection:
            connection.execute("SELECT pg_sleep(30)")
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, previous)

    with database.connection() as connection:
        assert connection.execute("SELECT 'sound'").fetchone() == ("sound",)


# -- transactions


def test_what_postgres_ended_for_a_deadlock_is_done_again(database: Database) -> None:
    tries: list[str] = []

    def work(own: psycopg.Connection[Any]) -> int:
        tries.append("once")
        if len(tries) == 1:
            own.execute("DO $$ BEGIN RAISE 'deadlock detected' USING ERRCODE = '40P01'; END $$")
        return len(tries)

    assert database.run(work) == 2


@pytest.mark.parametrize("state", ["57014", "55P03", "40001", "53200"])
def test_what_postgres_could_not_do_for_long_is_safe_to_retry(database: Database, state: str) -> None:
    tries: list[str] = []

    def work(own: psycopg.Connection[Any]) -> None:
        tries.append(state)
        own.execute(f"DO $$ BEGIN RAISE 'not now' USING ERRCODE = '{state}'; END $$")

    with pytest.raises(DatabaseUnavailable, match="not now"):
        database.run(work)
    assert len(tries) > 1


def test_a_transaction_of_ours_rolls_back_as_a_whole(database: Database) -> None:
    job, recorder = EventsOf(), JobRecorder(database)

    def submit_and_fail() -> None:
        with database.transaction() as connection:
            recorder.record(job.submitted(), connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        submit_and_fail()

    assert JobStore(database).get(job.key) is None


def test_a_caller_commits_with_psycopg(database: Database, database_url: str) -> None:
    job, recorder, store = EventsOf(), JobRecorder(database), JobStore(database)
    with psycopg.connect(database_url, row_factory=psycopg.rows.dict_row) as caller:
        with database.transaction(caller) as connection:
            recorder.record(job.submitted(), connection)
        assert store.get(job.key) is None, "not before the caller commits"
        caller.commit()
        assert store.get(job.key) is not None


def test_a_callers_autocommit_connection_gets_a_transaction_of_its_own(
    database: Database, outside: psycopg.Connection[Any]
) -> None:
    job = EventsOf()

    def submit_and_fail() -> None:
        with database.transaction(outside) as connection:
            JobRecorder(database).record(job.submitted(), connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        submit_and_fail()

    assert JobStore(database).get(job.key) is None


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("make", [sa.Connection, Session], ids=["connection", "session"])
def test_a_caller_commits_or_rolls_back_with_sqlalchemy(
    database: Database, make: type[Any], is_committed: bool
) -> None:
    job, recorder = EventsOf(), JobRecorder(database)
    engine = sa.create_engine(database.url)
    with make(engine) as caller:
        with database.transaction(caller) as connection:
            recorder.record(job.submitted(), connection)
        if is_committed:
            caller.commit()
    engine.dispose()

    assert (JobStore(database).get(job.key) is not None) == is_committed


def test_djangos_connection_is_opened_and_used(database: Database, outside: psycopg.Connection[Any]) -> None:
    class DatabaseWrapper:  # as django.db.backends.postgresql.base: opened on demand
        connection: Any = None

        def ensure_connection(self) -> None:
            self.connection = outside

    job = EventsOf()
    JobRecorder(database).record(job.submitted(), DatabaseWrapper())

    assert JobStore(database).get(job.key) is not None


# -- threads


def test_threads_that_ask_for_a_second_connection_do_not_wait_for_each_other(database: Database) -> None:
    """As a step does that is recorded inside a transaction, in each thread of `celery worker -P threads -c 20`."""
    threads = 20
    database.make_room(threads)
    all_have_one = threading.Barrier(threads, timeout=20)

    def step_in_transaction(_: int) -> object:
        with database.transaction():
            all_have_one.wait()
            return database.run(lambda own: own.execute("SELECT 7").fetchone())

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(step_in_transaction, range(threads), timeout=20)) == [(7,)] * threads


def test_who_finds_no_room_waits_for_who_has_a_connection(database_url: str) -> None:
    database = Database(database_url, most=1)
    order: list[str] = []

    def late() -> None:
        with database.connection():
            order.append("late")

    with database.connection():
        thread = threading.Thread(target=late)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    database.close()

    assert order == ["first", "late"]


# -- forks


def test_a_forked_child_has_connections_of_its_own_and_leaves_the_parents_alone(database: Database) -> None:
    def backend() -> int:
        with database.connection() as connection:
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        return int(row[0])

    parents = backend()

    in_child = _in_child(lambda: backend() if backend() != parents else -1)

    assert in_child > 0
    assert backend() == parents, "the child's end must not close the parent's session"


_FORKS_AND_LETS_THE_CHILD_END = """
import gc, os, sys
from jobbridge.store.database import Database

database = Database(sys.argv[1])
with database.connection() as connection:
    pid = connection.info.backend_pid
child = os.fork()
if child == 0:
    database._by_process.clear()
    gc.collect()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child did not end well"
with database.connection() as connection:
    assert connection.info.backend_pid == pid, "the parent had to connect anew"
    assert connection.execute("SELECT 1").fetchone() == (1,)
"""


def test_a_child_that_ends_its_interpreter_leaves_the_parents_session_open(database_url: str) -> None:
    # In a process of its own: what the other tests left is none of its business.
    done = subprocess.run(
        [sys.executable, "-c", _FORKS_AND_LETS_THE_CHILD_END, database_url],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def _in_child(work: Callable[[], int]) -> int:
    """Fork, do `work` in the child, and give what it returned."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12: "may lead to deadlocks" with threads
        pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, str(work()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return int(text)

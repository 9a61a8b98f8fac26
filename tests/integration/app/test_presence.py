"""A worker's lock tells that it lives, and its row what it can run."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from celery.bootsteps import RUN  # type: ignore[attr-defined]  # not in the stubs
from celery.worker import state as worker_state

from jobbridge import Celery
from jobbridge.app.worker.presence import Presence
from jobbridge.core.events import CONTENDED
from jobbridge.core.keys import Engine
from jobbridge.postgres.connect import connect_async
from jobbridge.postgres.presence import FORGET, MARGIN, ask
from jobbridge.settings import load_settings
from jobbridge.store.workers.workers import WorkerRow
from tests.job_events import EventsOf
from tests.parity.tasks import make_app
from tests.support import wait_until

EX_SOFTWARE = 70
GRACE = """
INSERT INTO jobbridge_broker.sweeps (only_one, server_started_at, swept_at, grace_until)
VALUES (true, pg_postmaster_start_time(), now(), now() + interval '1 minute')
"""


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def presence(app: Celery) -> Iterator[Presence]:
    presence = Presence(app, name="one@here", engine=Engine.CELERY)
    yield presence
    presence.close()


def _only(app: Celery) -> WorkerRow:
    (row,) = app.workers.all()
    return row


def test_a_worker_is_listed_with_what_it_can_run(app: Celery, presence: Presence) -> None:
    assert presence.open()

    row = _only(app)
    assert (row.number, row.name, row.pid, row.is_alive) == (presence.number, "one@here", os.getpid(), True)
    assert row.queues == ("celery",)
    assert "parity.add" in row.tasks
    assert app.workers.queues_served() == {(Engine.CELERY, "celery")}
    assert app.workers.who_can_run("parity.add", queue="celery", engine=Engine.CELERY) == [row]
    assert app.workers.who_can_run("parity.add", engine=Engine.TEMPORAL) == []
    assert app.workers.who_can_run("parity.add", queue="reports") == []
    assert app.workers.who_can_run("nobody.knows") == []
    presence.close()
    assert app.workers.all() == []


def test_a_worker_that_died_is_on_the_list_and_serves_nothing(app: Celery) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        Presence(app, name="one@here", engine=Engine.CELERY).open()
        os.write(writer, b"!")
        signal.pause()
    os.read(reader, 1)
    assert _only(app).is_alive

    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    wait_until(lambda: not _only(app).is_alive, timeout=5)
    assert app.workers.queues_served() == set()
    assert app.workers.dead_among([_only(app).number]) == {_only(app).number}
    os.close(reader)
    os.close(writer)


def test_a_worker_that_lost_its_session_lives(app: Celery, presence: Presence) -> None:
    presence.open()

    _end_sessions(app, "% presence")

    assert _only(app).is_alive
    assert app.workers.dead_among([presence.number]) == set()


def test_nobody_counts_as_dead_while_postgres_has_just_begun(app: Celery, presence: Presence) -> None:
    """The sessions of all are lost by a restart, and take a moment to come back."""
    with app.database.connection() as own:
        age = own.execute("SELECT now() - pg_postmaster_start_time()").fetchone()

    assert age is not None
    expected = {12345} if age[0].total_seconds() > 60 else set()
    assert app.workers.dead_among([12345]) == expected


def test_a_lost_session_comes_back_under_the_same_number(app: Celery, presence: Presence) -> None:
    presence.open()
    presence.watch(None)

    _end_sessions(app, "% presence")
    app.workers.remove([presence.number])  # somebody took it for dead

    wait_until(lambda: app.workers.all() and presence.proof.is_held, timeout=10)
    assert _only(app).number == presence.number


def test_the_lock_lasts_until_the_last_forked_child_is_gone(app: Celery, presence: Presence) -> None:
    presence.open()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        # As the kernel does for a parent that is killed: the socket is closed, and nothing is said on it.
        assert presence._connection is not None
        os.close(presence._connection.fileno())
        assert not _is_free(app, presence)
    finally:
        os.close(writer)
        os.waitpid(child, 0)

    wait_until(lambda: _is_free(app, presence), timeout=10)


def test_a_childs_exit_does_not_end_its_parents_session(app: Celery, presence: Presence) -> None:
    presence.open()
    child = os.fork()
    if child == 0:
        presence.close()
        os._exit(0)
    os.waitpid(child, 0)

    assert not _is_free(app, presence)


def _is_free(app: Celery, presence: Presence) -> bool:
    with app.database.connection() as own:
        return bool(ask(own, [presence.number]))


def test_a_lock_that_is_held_on_a_loop_is_not_kept_by_a_child(app: Celery) -> None:
    async def hold_and_die() -> int:
        session = await connect_async(app.database.target, "on a loop")
        await session.execute("SELECT pg_advisory_lock(4711)")
        pid = os.fork()
        if pid == 0:
            signal.pause()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, session.fileno())  # what the death of this process does to the socket
        os.close(nothing)
        await session.close()
        return pid

    child = asyncio.run(hold_and_die())
    try:
        with app.database.connection() as connection:
            wait_until(
                lambda: connection.execute("SELECT pg_try_advisory_lock(4711)").fetchone() == (True,),
                message="the lock is free",
            )
            connection.execute("SELECT pg_advisory_unlock(4711)")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _end_sessions(app: Celery, name: str) -> None:
    with app.database.connection() as own:
        ended = own.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name LIKE %s AND datname = current_database()",
            [name],
        ).fetchall()
    assert ended == [(True,)]


def test_a_worker_starts_while_postgres_is_away(app: Celery) -> None:
    away = make_app(settings=load_settings({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}))
    presence = Presence(away, name="two@here", engine=Engine.CELERY)

    assert not presence.open()
    presence.close()
    assert isinstance(presence.number, int)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect("postgresql://nobody@127.0.0.1:1/none")


def test_a_job_that_a_living_worker_has_begun_is_begun_by_no_other_on_temporal(
    app: Celery, presence: Presence
) -> None:
    presence.open()
    job = EventsOf(engine=Engine.TEMPORAL)
    app.recorder.record(job.submitted())
    assert app.recorder.record(job.started(worker_number=presence.number)).attempt == 1

    # Temporal lost sight of the first worker while the job waited there, and gave it to a second one.
    refused = app.recorder.record(job.started(worker="two@here", worker_number=presence.number + 1))
    assert (refused.applied, refused.reason) == (False, CONTENDED)

    presence.close()
    taken = app.recorder.record(job.started(worker="two@here", worker_number=presence.number + 1))
    assert (taken.applied, taken.attempt) == (True, 2)


def test_a_job_whose_worker_lost_its_session_and_lives_is_begun_by_no_other_on_temporal(
    app: Celery, presence: Presence
) -> None:
    presence.open()
    job = EventsOf(engine=Engine.TEMPORAL)
    app.recorder.record(job.submitted())
    app.recorder.record(job.started(worker_number=presence.number))
    _end_sessions(app, "% presence")
    second = job.started(worker="two@here", worker_number=presence.number + 1)

    refused = app.recorder.record(second)
    assert (refused.applied, refused.reason) == (False, CONTENDED)

    app.database.run(lambda own: own.execute(FORGET, {"numbers": [presence.number]}))  # it was judged
    assert app.recorder.record(second).applied


def test_no_job_is_taken_over_in_the_grace_on_temporal(app: Celery) -> None:
    """Nor one of a worker of the release before, which has no row."""
    job = EventsOf(engine=Engine.TEMPORAL)
    app.recorder.record(job.submitted())
    app.recorder.record(job.started(worker_number=4711))
    second = job.started(worker="two@here", worker_number=4712)
    app.database.run(lambda own: own.execute(GRACE))

    refused = app.recorder.record(second)
    assert (refused.applied, refused.reason) == (False, CONTENDED)

    app.database.run(lambda own: own.execute("UPDATE jobbridge_broker.sweeps SET grace_until = now()"))
    assert app.recorder.record(second).applied


class _Running:
    """A request of a task that some thread runs."""

    worker_pid = None


@pytest.mark.parametrize(("runs", "ends_with"), [([_Running()], EX_SOFTWARE), ([], 0)])
def test_a_worker_that_could_not_prove_itself_for_long_stops_what_it_runs(
    runs: list[Any], ends_with: int, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon after others may run it. One that runs nothing has nothing to stop, and waits on."""
    monkeypatch.setattr("jobbridge.app.worker.presence.LIMIT", MARGIN + timedelta(seconds=0.3))
    child = os.fork()
    if child == 0:
        presence = Presence(app, name="one@here", engine=Engine.CELERY)
        presence.watchdog.begin(
            SimpleNamespace(consumer=None, pool=None, blueprint=SimpleNamespace(state=RUN))
        )
        for request in runs:
            worker_state.active_requests.add(request)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            presence._see_to_loops()
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == ends_with

"""What `acks_late=False` costs: a killed worker's job is not run again, and its row says so within seconds."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobbridge import Celery
from jobbridge.core.keys import job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.maintenance.reaper import Reaper
from jobbridge.maintenance.sightings import Sightings
from jobbridge.settings import load_settings
from jobbridge.store.jobs.rows import JobRow
from jobbridge.store.workers.services import ServiceRow, services
from jobbridge.store.workers.workers import WorkerStore
from tests.conftest import StartWorker
from tests.parity.tasks import make_app
from tests.support import wait_until


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path)}


@pytest.fixture
def app(environment: dict[str, str]) -> Iterator[Celery]:
    app = make_app(settings=load_settings(environment))
    app.finalize()
    yield app
    app.close()


def _started(app: Celery, tmp_path: Path, result: Any, *, times: int = 1) -> JobRow:
    """Wait until the job runs; gives its row."""
    notes = tmp_path / str(result.id) / "hold.pids"
    wait_until(lambda: notes.exists() and len(notes.read_text().splitlines()) == times, timeout=30)
    return _row(app, result)


def _row(app: Celery, result: Any) -> JobRow:
    row = app.jobs.find(job_id_for(result.id))
    assert row is not None
    return row


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_killed_workers_early_job_fails(
    app: Celery,
    environment: dict[str, str],
    celery_worker: StartWorker,
    tmp_path: Path,
    pool: str,
) -> None:
    app.workers = WorkerStore(app.database, grace=timedelta())
    reaper = Reaper(app, Sightings(apart=timedelta()))
    worker = celery_worker("tests.parity.app", "-P", pool, JOB_RUNNER_MAINTENANCE="false", **environment)
    result = app.tasks["parity.hold_early"].delay()
    row = _started(app, tmp_path, result)
    (listed,) = app.workers.all()
    assert (listed.pid, listed.is_alive) == (worker.pid, True)
    assert row.status is JobStatus.PROCESSING
    assert reaper.run(threading.Event()) == {}

    worker.kill()
    wait_until(
        lambda: not app.workers.alive(), timeout=10, message="the lock is free: its children died, too"
    )

    assert reaper.run(threading.Event()) == {"buried": 1, "failed": 1}
    row = _row(app, result)
    assert row.status is JobStatus.FAILED
    assert "acks_late=False" in str(row.error)


def test_a_worker_that_loses_a_pool_process_stays_on_the_list(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    app.workers = WorkerStore(app.database, grace=timedelta())
    reaper = Reaper(app, Sightings(apart=timedelta()))
    worker = celery_worker("tests.parity.app", "-c", "1", JOB_RUNNER_MAINTENANCE="false", **environment)
    result = app.tasks["parity.hold"].delay()
    _started(app, tmp_path, result)
    (child,) = (tmp_path / result.id / "hold.pids").read_text().split()

    os.kill(int(child), signal.SIGKILL)
    _started(app, tmp_path, result, times=2)  # another process of the same worker has it

    assert reaper.run(threading.Event()) == {}
    assert [listed.pid for listed in app.workers.alive()] == [worker.pid]
    second = (tmp_path / result.id / "hold.pids").read_text().split()[-1]
    worker.kill()
    wait_until(lambda: not _is_running(int(second)), timeout=10, message="no orphan goes on with the job")
    assert reaper.run(threading.Event()) == {"buried": 1}
    assert _row(app, result).status is JobStatus.PROCESSING  # its message waits for the next worker


def test_workers_look_after_each_other(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    """Nothing but two workers: the one that leads the services and runs the job is killed."""
    workers = {}
    for _ in range(2):
        worker = celery_worker("tests.parity.app", "-c", "1", **environment)
        workers[worker.pid] = worker
    leader = wait_until(lambda: next((row for row in services(app.database) if row.name == "reaper"), None))
    result = app.tasks["parity.hold_early"].delay()
    row = _started(app, tmp_path, result)
    by_name = {listed.name: listed for listed in app.workers.alive()}
    assert leader.holder in by_name
    victims = {str(leader.holder), str(row.worker)}

    for name in victims:
        workers.pop(by_name[name].pid).kill()
    if not workers:
        celery_worker("tests.parity.app", "-c", "1", **environment)

    def failed() -> bool:
        row = _row(app, result)
        assert row.status is JobStatus.FAILED, (row.status, services(app.database))
        return True

    wait_until(failed, timeout=90, every=0.2)
    wait_until(lambda: len(app.workers.all()) == 1, timeout=30)

    def reaper() -> ServiceRow:
        return next(row for row in services(app.database) if row.name == "reaper")

    wait_until(lambda: reaper().counters.get("failed") == 1, timeout=30)  # written when it has looked at all
    assert reaper().holder not in victims


def test_a_worker_that_is_stopped_leaves_the_list(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker
) -> None:
    worker = celery_worker("tests.parity.app", "-c", "1", **environment)
    assert [listed.pid for listed in app.workers.alive()] == [worker.pid]

    worker.stop()

    assert app.workers.all() == []
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchone()
    assert left == (0,)

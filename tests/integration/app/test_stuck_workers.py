"""A worker whose loop hangs or has died ends itself: its messages go to others, and `jobbridge doctor` names it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobbridge import Celery
from jobbridge.core.keys import job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.dev.process import ManagedProcess
from jobbridge.diagnosis.consumers import check_workers
from jobbridge.settings import load_settings
from tests.conftest import StartWorker
from tests.parity.tasks import make_app
from tests.support import wait_until

EX_SOFTWARE = 70


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path), "STUCK_AFTER": "3"}


@pytest.fixture
def app(environment: dict[str, str]) -> Iterator[Celery]:
    app = make_app(settings=load_settings(environment))
    app.finalize()
    yield app
    app.close()


@pytest.mark.parametrize(
    ("pool", "command", "reason"),
    [
        ("prefork", "hang_loop", "its main loop has not turned"),
        ("threads", "hang_loop", "its main loop has not turned"),
        ("prefork", "end_loop", "its main thread has ended"),
    ],
)
def test_a_worker_whose_loop_does_not_turn_ends_itself(
    pool: str,
    command: str,
    reason: str,
    app: Celery,
    environment: dict[str, str],
    celery_worker: StartWorker,
    tmp_path: Path,
) -> None:
    stuck = celery_worker(
        "tests.integration.app.stuck_app", "-P", pool, "-c", "1", "-n", "stuck@%h", **environment
    )
    result = app.tasks["parity.hold"].delay()
    pids = tmp_path / result.id / "hold.pids"
    wait_until(pids.exists)
    other = celery_worker("tests.parity.app", "-c", "1", **environment)

    app.control.broadcast(
        command, destination=[row.name for row in app.workers.all() if row.pid == stuck.pid]
    )

    wait_until(lambda: not stuck.is_running, timeout=20, message="it ends itself")
    assert stuck.exit_code == EX_SOFTWARE
    wait_until(
        lambda: len(pids.read_text().splitlines()) == 2, timeout=10, message="another worker has its job"
    )
    (tmp_path / result.id / "go").touch()
    assert result.get(timeout=20) == 1
    row = app.jobs.find(job_id_for(result.id))
    assert row is not None
    assert row.status is JobStatus.COMPLETED
    (check,) = [check for check in check_workers(app) if check.name == "stuck workers"]
    assert not check.is_good
    assert f"pid {stuck.pid}" in check.found
    assert reason in check.found
    assert "Thread 0x" in stuck.log()  # the stacks of all threads
    assert [row.pid for row in app.workers.alive()] == [other.pid]


@pytest.mark.parametrize(
    ("command", "reason"),
    [("hang_loop", "its main loop has not turned"), ("hang_temporal", "its temporal loop has not turned")],
)
def test_a_temporal_worker_whose_loop_does_not_turn_ends_itself(
    command: str,
    reason: str,
    app: Celery,
    environment: dict[str, str],
    temporal_worker: StartWorker,
    temporal_server: str,
    task_queue: str,
) -> None:
    stuck = temporal_worker(
        "tests.integration.app.stuck_app",
        *("-c", "1"),
        JOB_RUNNER_TYPE="temporal",
        TEMPORAL_ADDRESS=temporal_server,
        TEMPORAL_JOB_TASK_QUEUE=task_queue,
        **environment,
    )

    app.control.broadcast(command, destination=[row.name for row in app.workers.all()])

    wait_until(lambda: not stuck.is_running, timeout=20, message="it ends itself")
    assert stuck.exit_code == EX_SOFTWARE
    (check,) = [check for check in check_workers(app) if check.name == "stuck workers"]
    assert reason in check.found
    assert app.workers.alive() == []


def test_a_solo_worker_that_runs_a_task_is_not_stuck(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    worker = celery_worker(
        "tests.integration.app.stuck_app", "-P", "solo", **environment | {"STUCK_AFTER": "1"}
    )
    result = app.tasks["parity.hold"].delay()
    wait_until((tmp_path / result.id / "hold.pids").exists)

    _outlast(worker, seconds=4)

    (tmp_path / result.id / "go").touch()
    assert result.get(timeout=20) == 1
    assert worker.is_running


def test_a_warm_shutdown_that_waits_for_a_task_is_not_stuck(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    worker = celery_worker("tests.integration.app.stuck_app", "-c", "1", **environment | {"STUCK_AFTER": "1"})
    result = app.tasks["parity.hold"].delay()
    wait_until((tmp_path / result.id / "hold.pids").exists)
    worker.ask_to_stop()
    wait_until(lambda: "Warm shutdown" in worker.log())

    _outlast(worker, seconds=4)

    (tmp_path / result.id / "go").touch()
    assert result.get(timeout=20) == 1
    wait_until(lambda: not worker.is_running, timeout=20)
    assert worker.exit_code == 0


def _outlast(worker: ManagedProcess, *, seconds: float) -> None:
    """Let time pass in which a worker that counts as stuck would end itself."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until)
    assert worker.is_running, worker.log()
    assert "worker.stuck" not in worker.log()

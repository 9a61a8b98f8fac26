"""The commands that serve jobs, as processes of ours."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from jobbridge.dev.process import DevServerError, ManagedProcess

_READY_WITHIN = timedelta(seconds=60)
#: Celery's worker logs the one when it takes messages, the dashboard's server the other when it takes requests.
_READY_LINES = (" ready.", "Uvicorn running on ")

#: What `-S jobbridge` means; by its own name it is found in a checkout that is not installed, too.
_SCHEDULER = "jobbridge.app.schedules.beat:TableScheduler"

#: Long enough for a short job to end, short enough that all together stop within ten seconds. What is cut off
#: runs again at the next start.
STOP_GRACE = timedelta(seconds=5)


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Give our environment with these settings, for a worker that logs line by line and finds the app here."""
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **settings}


def celery_worker(app: str, *, log_path: Path, env: Mapping[str, str], concurrency: int) -> ManagedProcess:
    """Describe `celery worker`."""
    options = [
        "--loglevel",
        "INFO",
        "--concurrency",
        str(concurrency),
        "--hostname",
        f"celery-{os.getpid()}@%h",
    ]
    return _python("celery worker", ["-m", "celery", "-A", app, "worker", *options], log_path, env)


def celery_beat(app: str, *, log_path: Path, env: Mapping[str, str], schedule_path: Path) -> ManagedProcess:
    """Describe `celery beat -S jobbridge`: also for an app that sets another scheduler."""
    options = ["--loglevel", "INFO", "--scheduler", _SCHEDULER, "--schedule", str(schedule_path)]
    return _python("celery beat", ["-m", "celery", "-A", app, "beat", *options], log_path, env)


def temporal_worker(app: str, *, log_path: Path, env: Mapping[str, str], concurrency: int) -> ManagedProcess:
    """Describe `jobbridge temporal-worker`."""
    options = ["-l", "INFO", "-c", str(concurrency), "-n", f"temporal-{os.getpid()}@%h"]
    return _python("temporal worker", ["-m", "jobbridge.temporal.worker", "-A", app, *options], log_path, env)


def dashboard(app: str, *, log_path: Path, env: Mapping[str, str], port: int) -> ManagedProcess:
    """Describe `jobbridge dashboard`, for whoever sits at this machine."""
    options = ["--no-auth", "--no-access-log", "--port", str(port), "-A", app]
    return _python("dashboard", ["-m", "jobbridge.cli", "dashboard", *options], log_path, env)


def wait_until_ready(workers: Sequence[ManagedProcess]) -> None:
    """Wait until these workers take jobs, or requests.

    Raises:
        DevServerError: One of them ended, or needs too long; with its last lines.
    """
    deadline = time.monotonic() + _READY_WITHIN.total_seconds()
    waiting = list(workers)
    while waiting:
        for worker in waiting:
            if not worker.is_running:
                raise DevServerError(f"The {worker.name} ended with {worker.exit_code}:\n{worker.tail()}")
        if time.monotonic() > deadline:
            names = ", ".join(worker.name for worker in waiting)
            raise DevServerError(f"Not ready after {_READY_WITHIN.seconds} s: {names}\n{waiting[0].tail()}")
        waiting = [worker for worker in waiting if not _says_that_it_is_ready(worker.log())]
        time.sleep(0.05)


def _says_that_it_is_ready(log: str) -> bool:
    return any(line in log for line in _READY_LINES)


def _python(name: str, arguments: Sequence[str], log_path: Path, env: Mapping[str, str]) -> ManagedProcess:
    return ManagedProcess(
        name=name, argv=[sys.executable, *arguments], log_path=log_path, env=env, grace=STOP_GRACE
    )

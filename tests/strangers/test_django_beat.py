"""django-celery-beat's scheduler, with its schedules in its own tables, sends to both engines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartWorker
from tests.support import Looking, clean_environment, wait_until, worker_process

pytestmark = pytest.mark.long

_DECLARE = """
import django
django.setup()
from django_celery_beat.models import IntervalSchedule, PeriodicTask
each_second, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
PeriodicTask.objects.create(name={name!r}, task="strangers.add", interval=each_second, **{options!r})
"""

_LOOK = """
import django
django.setup()
from django_celery_beat.models import PeriodicTask
from django_celery_results.models import TaskResult
from tests.support import wait_until
wait_until(lambda: PeriodicTask.objects.filter(name="once", enabled=False).exists())  # beat writes what it has sent
assert PeriodicTask.objects.get(name="often").total_run_count > 1
wait_until(lambda: TaskResult.objects.filter(periodic_task_name="once", status="SUCCESS").count() == 1)
wait_until(lambda: TaskResult.objects.filter(periodic_task_name="often", status="SUCCESS").count() > 1)
"""


@pytest.mark.parametrize("engine", ["celery", "temporal"])
def test_django_celery_beat(
    engine: str, database_url: str, task_queue: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = {
        "DATABASE_URL": database_url,
        "DJANGO_SETTINGS_MODULE": "tests.strangers.django_settings",
        "JOB_RUNNER_TYPE": engine,
        "TEMPORAL_JOB_TASK_QUEUE": task_queue,
        "TEMPORAL_ADDRESS": request.getfixturevalue("temporal_server")
        if engine == "temporal"
        else "127.0.0.1:1",
    }
    environment = clean_environment(settings)

    def run(*argv: str) -> None:
        done = subprocess.run(
            [sys.executable, *argv], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("-m", "django", "migrate", "--verbosity", "0")
    run("-c", _DECLARE.format(name="often", options={"args": "[1, 2]", "priority": 7}))
    start: StartWorker = request.getfixturevalue(f"{engine}_worker")
    start("tests.strangers.django_app", "-P", "prefork", **settings)
    looking = Looking(database_url)
    argv = ["-m", "celery", "-A", "tests.strangers.django_app", "beat", "-l", "INFO"]
    argv += ["-S", "django_celery_beat.schedulers:DatabaseScheduler", "--pidfile", ""]

    def ran(x: int) -> Callable[[], list[dict[str, Any]]]:
        statement = """
            SELECT runner_type, priority FROM jobs
            WHERE type = 'strangers.add' AND status = 'completed' AND metadata->'data'->'args' = %s::jsonb
        """
        return lambda: looking.rows(statement, [f"[{x}, 2]"])

    with worker_process(
        argv, name="beat", log_path=tmp_path / "beat.log", env=environment, ready="beat: Starting"
    ):
        rows = wait_until(lambda: len(ran(1)()) > 1 and ran(1)())
        assert {(row["runner_type"], row["priority"]) for row in rows} == {(engine, 7)}
        # Declared while beat runs, as somebody does in Django's admin.
        run("-c", _DECLARE.format(name="once", options={"args": "[3, 2]", "one_off": True}))
        wait_until(ran(3))
        run("-c", _LOOK)
    assert len(ran(3)()) == 1
    looking.close()

"""django-celery-results beside our own record: results are in its tables, jobs in ours, on both engines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartWorker
from tests.support import Looking, clean_environment, wait_until

pytestmark = pytest.mark.long

_PROGRAM = """
import django
django.setup()
from celery import chord
from celery.exceptions import TimeoutError
from tests.strangers.django_app import add, again, app, fail, total
from django_celery_results.models import TaskResult

sent = add.delay(2, 3)
assert sent.get(timeout=30) == 5
row = TaskResult.objects.get(task_id=sent.id)
assert (row.status, row.result, row.task_name) == ("SUCCESS", "5", "strangers.add"), (row.status, row.result)
failed = fail.delay()
assert failed.get(timeout=30, propagate=False).args == ("no",)
assert TaskResult.objects.get(task_id=failed.id).status == "FAILURE"
assert again.delay().get(timeout=30) == 1
assert chord([add.s(1, 1), add.s(2, 2)], total.s()).delay().get(timeout=30) == 6
print("done")
"""


@pytest.mark.parametrize("engine", ["celery", "temporal"])
def test_django_celery_results(
    engine: str,
    database_url: str,
    task_queue: str,
    celery_worker: StartWorker,
    temporal_worker: StartWorker,
    request: pytest.FixtureRequest,
    tmp_path: Path,
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

    def run(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, *argv],
            env=clean_environment(settings), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    run("-m", "django", "migrate", "--verbosity", "0")
    start = celery_worker if engine == "celery" else temporal_worker
    start("tests.strangers.django_app", "-P", "prefork", **settings)

    assert run("-c", _PROGRAM) == "done"

    looking = Looking(database_url)

    def statuses() -> dict[str, int]:
        rows = looking.rows("SELECT type || ' ' || status AS what, count(*) AS number FROM jobs GROUP BY 1")
        return {row["what"]: row["number"] for row in rows}

    expected = {
        "strangers.add completed": 3,
        "strangers.fail failed": 1,
        "strangers.again completed": 1,
        "strangers.total completed": 1,
    }
    wait_until(lambda: expected.items() <= statuses().items(), message=str(statuses()))
    looking.close()

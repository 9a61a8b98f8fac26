"""An ordinary Celery project, and its own tests: on Celery with Redis, and with one import and one setting changed.

The project knows nothing of JobBridge. It is copied, its `from celery import Celery` becomes `from jobbridge import
Celery`, and `DATABASE_URL` is set: that is CE. With `JOB_RUNNER_TYPE=temporal` it is EE; and for the third setting the
tasks of one of its modules are given `engine="temporal"`, as who moves task by task does.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.forked import run_python
from tests.redis_server import run_redis
from tests.support import Looking, clean_environment, wait_until, worker_process

pytestmark = pytest.mark.long

PROJECT = Path(__file__).with_name("project")
QUEUES = "shop,media,urgent"
CELERY, TEMPORAL = (
    ["-m", "celery", "-A", "shop.app", "worker"],
    ["-m", "jobbridge.temporal.worker", "-A", "shop.app"],
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def change(folder: Path, name: str, old: str, new: str) -> int:
    path = folder / name
    text = path.read_text()
    path.write_text(text.replace(old, new))
    return text.count(old)


def run(folder: Path, workers: list[list[str]], **settings: str) -> None:
    """Run the project's own tests, beside workers and beat."""
    own = {"PYTHONPATH": str(folder), "SHOP_LEDGER": str(folder.parent / "ledger"), **settings}
    environment = {
        name: value for name, value in clean_environment(own).items() if not name.startswith("PYTEST")
    }
    with ExitStack() as started:
        for number, argv in enumerate(workers):
            arguments = ["-l", "INFO", "-c", "2", "-n", f"w{number}@%h", "-Q", QUEUES]
            log = folder.parent / f"worker-{number}.log"
            started.enter_context(
                worker_process(
                    [*argv, *arguments], name=f"w{number}", log_path=log, env=environment, cwd=folder
                )
            )
        beat = ["-m", "celery", "-A", "shop.app", "beat", "-l", "INFO", "-s", str(folder.parent / "beat")]
        log = folder.parent / "beat.log"
        started.enter_context(
            worker_process(
                beat, name="beat", log_path=log, env=environment, cwd=folder, ready="beat: Starting"
            )
        )
        done = run_python(
            ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"],
            cwd=folder,
            env=environment,
            timeout=250,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def rows_by(url: str) -> Iterator[tuple[str, str, int]]:
    looking = Looking(url)
    for row in looking.rows("SELECT runner_type, type, count(*) AS number FROM jobs GROUP BY 1, 2"):
        yield row["runner_type"], row["type"], row["number"]
    looking.close()


def test_it_passes_on_celery_with_redis(project: Path) -> None:
    """What its tests hold for true is Celery's own."""
    with run_redis(project.parent) as url:
        run(project, [CELERY], CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)


@pytest.mark.parametrize("setting", ["celery", "temporal", "mixed"])
def test_it_passes_with_one_import_and_one_setting_changed(
    project: Path, database_url: str, task_queue: str, setting: str, request: pytest.FixtureRequest
) -> None:
    assert change(project, "shop/app.py", "from celery import Celery", "from jobbridge import Celery") == 1
    settings = {"DATABASE_URL": database_url}
    workers = {"celery": [CELERY], "temporal": [TEMPORAL], "mixed": [CELERY, TEMPORAL]}[setting]
    if setting != "celery":
        settings["TEMPORAL_ADDRESS"] = request.getfixturevalue("temporal_server")
        settings["TEMPORAL_JOB_TASK_QUEUE"] = task_queue
    if setting == "temporal":
        settings["JOB_RUNNER_TYPE"] = "temporal"
    if setting == "mixed":
        change(project, "shop/reports.py", "@shared_task\n", "@shared_task()\n")
        assert change(project, "shop/reports.py", "@shared_task(", '@shared_task(engine="temporal", ') > 3
        settings["JOB_RUNNER_TYPE"] = "celery"

    run(project, workers, **settings)

    def ran() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for engine, task, _ in rows_by(database_url):
            found.setdefault(engine, set()).add(task)
        return found

    engines = wait_until(ran)
    assert set(engines) == ({"celery", "temporal"} if setting == "mixed" else {setting})
    if setting == "mixed":
        assert engines["temporal"] <= {
            name for name in engines["temporal"] if name.startswith("shop.reports.")
        }
        assert "shop.orders.add" in engines["celery"]

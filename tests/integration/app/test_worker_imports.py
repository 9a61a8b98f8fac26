"""What a running worker has imported: nothing of the other engine, of the dashboard, of migrations, of SQLAlchemy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from jobbridge.dev.process import ManagedProcess
from tests.support import clean_environment, wait_until

#: Writes down what its worker has imported when it is ready to take jobs.
SHOP = """
import gc, json, resource, sys
from pathlib import Path
from celery.signals import worker_process_init, worker_ready
from jobbridge import Celery

app = Celery("shop")

@app.task(name="shop.nothing")
def nothing():
    return None

@worker_ready.connect
def tell(**_):
    used = resource.getrusage(resource.RUSAGE_SELF)
    Path("new").write_text(json.dumps([used.ru_utime + used.ru_stime, sorted(sys.modules)]))
    Path("new").rename("imported")

@worker_process_init.connect
def tell_of_process(**_):
    Path("objects").write_text(f"{gc.get_freeze_count()} {len(gc.get_objects())}")
    Path("objects").rename("of_process")
"""
COMMANDS = {
    "celery": ["-m", "celery", "-A", "shop", "worker", "-P", "prefork", "-c", "1"],
    "temporal": ["-m", "jobbridge.temporal.worker", "-A", "shop", "-P", "threads", "-c", "2"],
}
NEITHER = {
    "sqlalchemy", "alembic", "fastapi", "starlette", "uvicorn", "jinja2", "prometheus_client", "opentelemetry", "rich",
    "httpx", "openpyxl", "reportlab",
    "jobbridge.dashboard", "jobbridge.dev", "jobbridge.diagnosis", "jobbridge.handlers",
    "jobbridge.runners", "jobbridge.testing", "jobbridge.store.monitor",
    "jobbridge.store.schema.migrate",
}  # fmt: skip


@pytest.mark.parametrize("engine", ["celery", "temporal"])
def test_a_worker_imports_what_it_works_with(
    engine: str, database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    settings = {"DATABASE_URL": database_url, "JOB_RUNNER_TYPE": engine}
    if engine == "temporal":
        settings["TEMPORAL_ADDRESS"] = request.getfixturevalue("temporal_server")
        settings["TEMPORAL_JOB_TASK_QUEUE"] = request.getfixturevalue("task_queue")
    # A new process: one that was forked has imported everything.
    with ManagedProcess(
        name="worker", argv=[sys.executable, *COMMANDS[engine]], cwd=tmp_path,
        log_path=tmp_path / "log", env=clean_environment(settings),
    ) as worker:  # fmt: skip
        wait_until((tmp_path / "imported").exists, message=worker.tail(30))
        if engine == "celery":
            wait_until((tmp_path / "of_process").exists, message=worker.tail(30))
        worker.kill()

    seconds, modules = json.loads((tmp_path / "imported").read_text())
    print(f"{seconds:.2f} s of processor time until it was ready, {len(modules)} modules")
    assert {"jobbridge.app", "celery.worker"} <= set(modules)
    assert set(modules) & NEITHER == set()
    assert ("temporalio" in modules) == (engine == "temporal")
    assert ("jobbridge.temporal" in modules) == (engine == "temporal")
    if engine == "celery":
        left_out, collected = map(int, (tmp_path / "of_process").read_text().split())
        assert left_out > 50_000 > collected, (
            "a collection would copy the memory that it shares with its parent"
        )

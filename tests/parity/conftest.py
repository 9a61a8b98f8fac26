"""One world per test: a database, an engine, an app in this process, and workers as processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from jobbridge import Celery
from jobbridge.core.keys import Engine, job_id_for
from jobbridge.dev.process import ManagedProcess
from jobbridge.settings import load_settings
from tests.conftest import StartWorker
from tests.parity.tasks import make_app
from tests.support import wait_until


@dataclass
class World:
    engine: Engine
    database_url: str
    environment: dict[str, str]
    folder: Path
    app: Celery
    start_celery: StartWorker
    start_temporal: StartWorker
    workers: list[ManagedProcess] = field(default_factory=list)

    def worker(self, *arguments: str, engine: Engine | None = None) -> ManagedProcess:
        start = self.start_celery if (engine or self.engine) is Engine.CELERY else self.start_temporal
        worker = start("tests.parity.app", *arguments, **self.environment)
        self.workers.append(worker)
        return worker

    def task(self, name: str) -> Any:
        return self.app.tasks[f"parity.{name}"]

    def rows(self, where: str = "true", *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
            return connection.execute(
                f"SELECT * FROM jobs WHERE {where} ORDER BY created_at", values
            ).fetchall()

    def row(self, task_id: str) -> dict[str, Any]:
        (row,) = self.rows("job_id = %s", job_id_for(task_id))
        return row

    def details(self, task_id: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
            return connection.execute(
                "SELECT * FROM job_details WHERE job_id = %s ORDER BY sequence", [job_id_for(task_id)]
            ).fetchall()

    def wait_for_status(self, task_id: str, status: str, *, timeout: float = 30.0) -> dict[str, Any]:
        def reached() -> dict[str, Any]:
            row = self.row(task_id)
            assert row["status"] == status, {
                k: row[k] for k in ("type", "status", "attempt", "error", "worker")
            }
            return row

        return wait_until(reached, timeout=timeout, message=f"status {status}")

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def release(self, name: str = "go") -> None:
        (self.folder / name).touch()


@pytest.fixture(params=[Engine.CELERY, Engine.TEMPORAL], ids=str)
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param)


@pytest.fixture
def world(
    engine: Engine,
    database_url: str,
    tmp_path: Path,
    task_queue: str,
    celery_worker: StartWorker,
    temporal_worker: StartWorker,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    folder = tmp_path / "notes"
    folder.mkdir()
    environment = {
        "DATABASE_URL": database_url,
        "JOB_RUNNER_TYPE": engine.value,
        "PARITY_FOLDER": str(folder),
        "TEMPORAL_ADDRESS": request.getfixturevalue("temporal_server")
        if engine is Engine.TEMPORAL
        else "127.0.0.1:1",
        "TEMPORAL_JOB_TASK_QUEUE": task_queue,
    }
    monkeypatch.setenv("PARITY_FOLDER", str(folder))
    app = make_app(settings=load_settings(environment))
    app.finalize()
    yield World(engine, database_url, environment, folder, app, celery_worker, temporal_worker)
    app.close()
    app.database.close()

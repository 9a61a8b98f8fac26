"""A world of both engines: one database, one Temporal, workers where a test starts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobbridge import Celery
from jobbridge.core.keys import Engine
from jobbridge.dev.process import ManagedProcess
from jobbridge.settings import load_settings
from tests.conftest import StartWorker, worker_starter
from tests.forked import start_python
from tests.integration.cutover import app as tasks
from tests.support import Looking, clean_environment, wait_until

MODULE = "tests.integration.cutover.app"
TIMEOUT = 180.0
WAITING = ("pending", "queued", "scheduled", "retrying")


@dataclass
class Sides:
    """Both engines, and what moves between them."""

    app: Celery
    environment: dict[str, str]
    ledger: Path
    folder: Path
    starters: dict[Engine, StartWorker]
    looking: Looking

    def worker(self, engine: Engine | str, *arguments: str) -> ManagedProcess:
        started = self.starters[Engine(engine)]
        return started(MODULE, "-c", "2", *arguments, **self.environment)

    def send(self, name: str, engine: Engine | str, task: str = "run", *args: Any, **options: Any) -> str:
        sent = self.app.tasks[f"cutover.{task}"].apply_async((name, *args), engine=str(engine), **options)
        return str(sent.id)

    def cutover(self, *arguments: str, **settings: str) -> ManagedProcess:
        """Start the command, as a process of its own."""
        argv = ["-m", "tests.integration.cutover.mortal", "-A", MODULE, "cutover", *arguments]
        environment = clean_environment(self.environment | {"JOBBRIDGE_DEBUG": "1"} | settings)
        name = f"cutover {len(list(self.folder.glob('cutover*')))}"
        return start_python(argv, name=name, log_path=self.folder / f"{name}.log", env=environment)

    def moved(self, *arguments: str, code: int = 0, timeout: float = TIMEOUT, **settings: str) -> str:
        """Run the command to its end, and give what it says."""
        process = self.cutover(*arguments, **settings)
        with process:
            try:
                wait_until(lambda: not process.is_running, timeout=timeout, message="the cutover has ended")
            except AssertionError as error:
                raise AssertionError(f"{error}. It says:\n{process.log()}") from None
        assert process.exit_code == code, process.log()
        return process.log()

    def rows(self, where: str = "true", *values: Any) -> list[dict[str, Any]]:
        return self.looking.rows(f"SELECT * FROM jobs WHERE {where} ORDER BY created_at, job_id", values)

    def row(self, task_id: str) -> dict[str, Any]:
        [row] = self.rows("task_id = %s", task_id)
        return row

    def wait_for_status(self, task_id: str, status: str) -> None:
        def reached() -> bool:
            row = self.row(task_id)
            assert row["status"] == status, {
                name: row[name] for name in ("status", "attempt", "runner_type", "error")
            }
            return True

        wait_until(reached, timeout=TIMEOUT)

    def messages(self) -> int:
        [row] = self.looking.rows("SELECT count(*) AS number FROM jobbridge_broker.messages")
        return int(row["number"])

    def statuses(self) -> dict[str, int]:
        rows = self.looking.rows("SELECT status, count(*) AS number FROM jobs GROUP BY status")
        return {row["status"]: row["number"] for row in rows}

    def wait_until_all_ended(self, *, timeout: float = TIMEOUT) -> None:
        def ended() -> bool:
            left = self.statuses()
            assert set(left) <= {"completed"}, left
            return True

        wait_until(ended, timeout=timeout)

    def ran(self) -> dict[str, int]:
        """How often each name was noted."""
        return {path.name: len(path.read_text()) // 2 for path in self.ledger.iterdir()}


@pytest.fixture
def sides(
    request: pytest.FixtureRequest, database_url: str, temporal_server: str, task_queue: str, tmp_path: Path
) -> Iterator[Sides]:
    """Both engines; a test's parameter are further settings."""
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    environment = {
        "DATABASE_URL": database_url,
        "JOB_RUNNER_TYPE": "celery",
        "LEDGER": str(ledger),
        "TEMPORAL_ADDRESS": temporal_server,
        "TEMPORAL_JOB_TASK_QUEUE": task_queue,
        **getattr(request, "param", {}),
    }
    app = Celery("cutover", settings=load_settings(environment))
    app.conf.accept_content = ["json", "pickle"]
    app.finalize()
    assert tasks.run_once.name in app.tasks
    with ExitStack() as opened:
        opened.callback(app.database.close)
        opened.callback(app.close)
        starters = {
            Engine.CELERY: worker_starter(opened, tmp_path, "celery worker"),
            Engine.TEMPORAL: worker_starter(opened, tmp_path, "temporal worker"),
        }
        looking = opened.enter_context(closing(Looking(database_url)))
        yield Sides(app, environment, ledger, tmp_path, starters, looking)

"""A world for Temporal: a database, an app in this process, workers as processes, and Temporal's own CLI."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import ActivityExecutionDescription, Client

from jobbridge.core.keys import Engine, job_id_for
from jobbridge.dev.postgres import PostgresServer
from jobbridge.dev.process import ManagedProcess
from jobbridge.dev.temporal import TemporalServer
from jobbridge.settings import load_settings
from tests.conftest import StartWorker, worker_starter
from tests.histories import assert_histories_replay
from tests.integration.temporal.tasks import make_app
from tests.support import Looking, clean_environment, wait_until, worker_process

TIMEOUT = 30


@dataclass
class TemporalWorld:
    environment: dict[str, str]
    notes: Path
    app: Any
    temporal: TemporalServer
    start: StartWorker
    looking: Looking

    def worker(self, *arguments: str, **settings: str) -> ManagedProcess:
        return self.start("tests.integration.temporal.tasks", *arguments, **{**self.environment, **settings})

    def task(self, name: str) -> Any:
        return self.app.tasks[name]

    def worker_that_waits(
        self,
        address: str,
        log_path: Path,
        started: ExitStack,
        *,
        ready: str = "cannot be reached",
        **settings: str,
    ) -> ManagedProcess:
        """Start a worker whose Temporal is not there; it is entered when it says so."""
        process = worker_process(
            [
                "-m",
                "jobbridge.temporal.worker",
                "-A",
                "tests.integration.temporal.tasks",
                "-c",
                "1",
                "-l",
                "INFO",
            ],
            name="waiting worker",
            log_path=log_path,
            env=clean_environment({**self.environment, "TEMPORAL_ADDRESS": address, **settings}),
            ready=ready,
        )
        return started.enter_context(process)

    # -- the row

    def rows(self, where: str = "true", *values: Any) -> list[dict[str, Any]]:
        return self.looking.rows(f"SELECT * FROM jobs WHERE {where} ORDER BY created_at", values)

    def row(self, task_id: Any) -> dict[str, Any]:
        (row,) = self.rows("job_id = %s", job_id_for(str(task_id)))
        return row

    def wait_for_status(self, task_id: Any, status: str, *, timeout: float = TIMEOUT) -> dict[str, Any]:
        def reached() -> dict[str, Any]:
            row = self.row(task_id)
            assert row["status"] == status, {k: row[k] for k in ("type", "status", "attempt", "error")}
            return row

        return wait_until(reached, timeout=timeout, message=f"status {status}")

    # -- what jobs note

    def lines(self, task_id: Any, name: str) -> list[str]:
        path = self.notes / str(task_id) / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_start(self, task_id: Any, name: str = "started", *, times: int = 1) -> None:
        wait_until(
            lambda: len(self.lines(task_id, name)) >= times, timeout=TIMEOUT, message=f"{times} starts"
        )

    def release(self, task_id: Any, name: str = "go") -> None:
        folder = self.notes / str(task_id)
        folder.mkdir(exist_ok=True)
        (folder / name).touch()

    # -- Temporal's own CLI

    def cli(self, *arguments: str) -> Any:
        text = self.temporal.run_cli(*arguments, "--output", "json")
        return json.loads(text) if text.strip() else None

    def start_workflow(self, name: str, data: Any, *, job_id: str | None = None, **fields: Any) -> str:
        """Start the workflow as a foreign client does; gives the job's id."""
        job_id = job_id or str(uuid.uuid4())
        document = {"jobId": job_id, "jobName": name, "tenantId": None, "data": data, **fields}
        self.cli(
            "workflow", "start", "--type", "genericJobWorkflow", "--workflow-id", job_id,
            "--task-queue", self.environment["TEMPORAL_JOB_TASK_QUEUE"], "--input", json.dumps(document),
        )  # fmt: skip
        return job_id

    def signal(self, workflow_id: Any, name: str, document: Any) -> None:
        self.temporal.run_cli(
            "workflow",
            "signal",
            "--workflow-id",
            str(workflow_id),
            "--name",
            name,
            "--input",
            json.dumps(document),
        )

    def state(self, workflow_id: Any) -> dict[str, Any]:
        answer = self.cli("workflow", "query", "--workflow-id", str(workflow_id), "--type", "getJobState")
        state = answer["queryResult"]
        return dict(state[0] if isinstance(state, list) else state)

    def status(self, workflow_id: Any) -> str:
        description = self.cli("workflow", "describe", "--workflow-id", str(workflow_id))
        return str(description["workflowExecutionInfo"]["status"]).removeprefix("WORKFLOW_EXECUTION_STATUS_")

    def result(self, workflow_id: Any) -> Any:
        answer = self.cli("workflow", "result", "--workflow-id", str(workflow_id))
        return answer["result"]

    def activity(self, activity_id: Any) -> ActivityExecutionDescription:
        """Describe an activity that has no workflow."""

        async def describe(client: Client) -> ActivityExecutionDescription:
            return await client.get_activity_handle(str(activity_id)).describe()

        found: ActivityExecutionDescription = self.app.delivery(Engine.TEMPORAL).client.call(describe)
        return found

    def history(self, workflow_id: Any) -> list[dict[str, Any]]:
        return list(self.cli("workflow", "show", "--workflow-id", str(workflow_id))["events"])

    def wait_for_closed(self, workflow_id: Any, status: str, *, timeout: float = TIMEOUT) -> None:
        def closed() -> bool:
            now = self.status(workflow_id)
            assert now == status, now
            return True

        wait_until(closed, timeout=timeout, every=0.2, message=f"workflow {status}")


@pytest.fixture(scope="session")
def world(
    postgres: PostgresServer,
    migrated_template: str,
    temporal: TemporalServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TemporalWorld]:
    """A world with one worker (prefork) that many tests share."""
    url = postgres.create_database("world_of_temporal", template=migrated_template)
    with ExitStack() as started:
        world = make_world(url, temporal, tmp_path_factory.mktemp("temporal"), started)
        world.worker("-P", "prefork", "-c", "2", "-Q", "celery,other")
        yield world
        assert_histories_replay(temporal.address, world.environment["TEMPORAL_JOB_TASK_QUEUE"])


@pytest.fixture
def own_world(database_url: str, temporal: TemporalServer, tmp_path: Path) -> Iterator[TemporalWorld]:
    """A world of this test alone, with no worker yet."""
    with ExitStack() as started:
        yield make_world(database_url, temporal, tmp_path, started)


def make_world(
    url: str, temporal: TemporalServer, folder: Path, started: ExitStack, **settings: str
) -> TemporalWorld:
    notes = folder / "notes"
    notes.mkdir()
    environment = {
        "DATABASE_URL": url,
        "JOB_RUNNER_TYPE": "temporal",
        "PARITY_FOLDER": str(notes),
        "TEMPORAL_ADDRESS": temporal.address,
        "TEMPORAL_JOB_TASK_QUEUE": f"jobs-{uuid.uuid4().hex[:12]}",
        **settings,
    }
    app = make_app(settings=load_settings(environment))
    app.finalize()
    started.callback(app.database.close)
    started.callback(lambda: app.delivery(Engine.TEMPORAL).client.close())
    started.callback(app.close)
    start = worker_starter(started, folder, "temporal worker")
    looking = started.enter_context(closing(Looking(url)))
    return TemporalWorld(environment, notes, app, temporal, start, looking)

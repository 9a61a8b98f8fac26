"""What every test with a worker of Temporal's asserts at its end is seen when it happens."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.support import REPOSITORY, clean_environment, wait_until, worker_process

_WORKFLOW = """
from temporalio import workflow

@workflow.defn
class Failing:
    @workflow.run
    async def run(self) -> None:
        raise ValueError("this fails the task, and Temporal tries it again for ever")
"""

_APP = """
from jobbridge import Celery, UserQueue

app = Celery("failing")
app.conf.temporal_workers = [UserQueue({queue!r}, workflows=["failing_workflow:Failing"])]
"""


def test_a_worker_that_failed_a_task_of_a_workflow_fails_its_test(
    own_world: TemporalWorld, tmp_path: Path
) -> None:
    workflow_id = queue = f"failing-{uuid.uuid4().hex}"
    (tmp_path / "failing_workflow.py").write_text(_WORKFLOW)
    (tmp_path / "failing_app.py").write_text(_APP.format(queue=queue))
    environment = clean_environment({**own_world.environment, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"})
    argv = ["-m", "jobbridge.temporal.worker", "-A", "failing_app", "-P", "solo", "-l", "INFO"]

    running = ExitStack()
    running.enter_context(
        worker_process(argv, name="failing", log_path=tmp_path / "failing.log", env=environment)
    )
    own_world.cli(
        "workflow", "start", "--type", "Failing", "--workflow-id", workflow_id, "--task-queue", queue
    )
    wait_until(
        lambda: any("WORKFLOW_TASK_FAILED" in str(event) for event in own_world.history(workflow_id)),
        timeout=TIMEOUT,
        every=0.2,
    )

    with pytest.raises(AssertionError, match="has failed tasks of workflows"):
        running.close()
    own_world.temporal.run_cli("workflow", "terminate", "--workflow-id", workflow_id)

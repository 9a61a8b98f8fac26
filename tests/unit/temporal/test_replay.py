"""The workflow replays what real runs of it left: a change that breaks running workflows fails here."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from jobbridge.temporal.wire.client import DATA_CONVERTER
from jobbridge.temporal.worker.pollers import OWN_RUNNER, SANDBOX
from jobbridge.temporal.workflows.generic_job import GenericJobWorkflow

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_there_is_a_history_of_each_path() -> None:
    assert len(HISTORIES) >= 25


#: The sandbox finds what is not deterministic, such as a clock; workers do without.
SANDBOXED = SandboxedWorkflowRunner(restrictions=SANDBOX)


@pytest.mark.parametrize("runner", [SANDBOXED, OWN_RUNNER], ids=["sandbox", "worker"])
@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_recorded_history_replays(path: Path, runner: WorkflowRunner) -> None:
    document = json.loads(path.read_text())
    history = WorkflowHistory.from_json(document.pop("workflowId"), document)
    replayer = Replayer(
        workflows=[GenericJobWorkflow],
        data_converter=DATA_CONVERTER,
        workflow_runner=runner,
    )

    result = asyncio.run(replayer.replay_workflow(history, raise_on_replay_failure=False))

    assert result.replay_failure is None

"""What the workflows of a test left at Temporal replays: a worker that takes one over in its middle goes on with it."""

from __future__ import annotations

import asyncio

from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.client import DATA_CONVERTER
from jobbridge.temporal.worker.pollers import OWN_RUNNER
from jobbridge.temporal.workflows.generic_job import GenericJobWorkflow

#: So many of one task queue, the newest first: a tenth of a second for ten.
MOST = 200
#: A signal came while the task was being answered: Temporal has it done again, and calls the first one failed.
_OVERTAKEN = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND


def assert_histories_replay(address: str, task_queue: str, *, most: int = MOST) -> None:
    """Replay the jobs' histories of that task queue; nor has a task of one of them failed."""
    asyncio.run(_replay(address, task_queue, most))


async def _replay(address: str, task_queue: str, most: int) -> None:
    client = await Client.connect(address, data_converter=DATA_CONVERTER)
    replayer = Replayer(
        workflows=[GenericJobWorkflow], data_converter=DATA_CONVERTER, workflow_runner=OWN_RUNNER
    )
    found = client.list_workflows(
        f"TaskQueue = '{task_queue}' AND WorkflowType = '{contract.WORKFLOW}'", limit=most
    )
    histories = [each async for each in found.map_histories()]
    failed = {each.workflow_id: causes for each in histories if (causes := _failed_tasks(each))}
    assert failed == {}, "tasks of these workflows failed"

    async def all_of_them():  # type: ignore[no-untyped-def]  # what it is says the parameter that takes it
        for each in histories:
            yield each

    results = await replayer.replay_workflows(all_of_them(), raise_on_replay_failure=False)
    assert results.replay_failures == {}


def _failed_tasks(history: WorkflowHistory) -> list[str]:
    failed = [
        event.workflow_task_failed_event_attributes
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]
    return [f"{each.cause}: {each.failure.message}" for each in failed if each.cause != _OVERTAKEN]

"""What Temporal knows of one job, for who asks why it does not run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import ActivityExecutionDescription, Client
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.core.light import activity_id_in, external_id_of
from jobbridge.errors import EngineUnavailable
from jobbridge.temporal.deliver.delivery import task_queue_for
from jobbridge.temporal.deliver.light import RUNNING
from jobbridge.temporal.wire.client import TemporalClient

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingActivity:
    """An activity of the workflow that has not ended.

    Attributes:
        state: scheduled (no worker has it), started, or cancel_requested.
        attempt: 1-based, Temporal's own.
    """

    state: str
    attempt: int
    worker: str | None
    last_failure: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowFacts:
    """A workflow as Temporal describes it.

    Attributes:
        status: Such as RUNNING, COMPLETED, FAILED, CANCELED.
        pollers: The workers that lately took tasks from its task queue, as they call themselves.
    """

    workflow_id: str
    run_id: str | None
    status: str
    started_at: datetime | None
    closed_at: datetime | None
    activities: tuple[PendingActivity, ...]
    task_queue: str
    pollers: tuple[str, ...]

    @property
    def is_running(self) -> bool:
        return self.status == "RUNNING"


def look_at(app: Celery, workflow_id: str, queue: str) -> WorkflowFacts | None:
    """Describe the newest run of a workflow, or of an activity without one; None: Temporal knows none of that id.

    Args:
        workflow_id: As the job's row has it.
        queue: Celery's name of the queue that the job is in.

    Raises:
        EngineUnavailable: Temporal cannot be reached.
    """
    client = TemporalClient(app.settings)
    task_queue = task_queue_for(app, queue)

    async def describe(own: Client) -> WorkflowFacts:
        if activity_id := activity_id_in(workflow_id):
            found = await own.get_activity_handle(activity_id).describe(include_last_failure=True)
            return _facts_of_activity(found, task_queue, await client.pollers(own, task_queue))
        description = await own.get_workflow_handle(workflow_id).describe()
        return WorkflowFacts(
            workflow_id=workflow_id,
            run_id=description.run_id,
            status=description.status.name if description.status else "UNKNOWN",
            started_at=description.start_time,
            closed_at=description.close_time,
            activities=tuple(_activity(each) for each in description.raw_description.pending_activities),
            task_queue=task_queue,
            pollers=tuple(await client.pollers(own, task_queue)),
        )

    try:
        return client.call(describe)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise EngineUnavailable(f"Temporal: {error.message}") from error
    except TimeoutError as error:
        raise EngineUnavailable("Temporal did not answer in time.") from error
    finally:
        client.close()


def _facts_of_activity(
    found: ActivityExecutionDescription, task_queue: str, pollers: list[str]
) -> WorkflowFacts:
    state = None if found.run_state is None else found.run_state.name.lower()
    pending = PendingActivity(
        state=state or "started",
        attempt=found.attempt,
        worker=found.last_worker_identity,
        last_failure=found.raw_info.last_failure.message or None,
    )
    is_running = found.status in RUNNING
    return WorkflowFacts(
        workflow_id=external_id_of(found.activity_id),
        run_id=found.activity_run_id,
        status="RUNNING" if is_running else found.status.name,
        started_at=found.schedule_time,
        closed_at=found.close_time,
        activities=(pending,) if is_running else (),
        task_queue=task_queue,
        pollers=tuple(pollers),
    )


def _activity(pending: Any) -> PendingActivity:
    name = PendingActivityState.Name(pending.state).removeprefix("PENDING_ACTIVITY_STATE_")
    return PendingActivity(
        state=name.lower(),
        attempt=pending.attempt,
        worker=pending.last_worker_identity or None,
        last_failure=pending.last_failure.message or None if pending.HasField("last_failure") else None,
    )

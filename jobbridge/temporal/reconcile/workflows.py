"""Compares rows with their workflows, and settles a row whose workflow is over or gone.

A row and its workflow move apart when something ends a workflow from outside (an operator terminates it, its
namespace is lost) or when Postgres was away for so long that an end could not be written. The workflow's outcome then
decides:

| the workflow | the row |
|---|---|
| completed | completed with its result; cancelled, if that is what the result says |
| failed, timed out | failed |
| cancelled, terminated | cancelled |
| is not there, or completed while the row still waits | delivered again, a few times; failed, if that is not to be |

The other way, a workflow that runs although its row has ended is told so (`overdue`).

Delivered again means by a new delivery: should the old workflow turn up after all, its attempts are refused. Unknown
is not
absent: as long as Temporal does not answer for its namespace, nothing is settled; and what a living worker runs is
left to it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio.client import (
    ActivityFailureError,
    ActivityHandle,
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.app.execute.claim import is_at_most_once
from jobbridge.core.envelope import HEADER, Envelope
from jobbridge.core.events import Cancelled, Completed, Failed, JobEvent, Redelivered
from jobbridge.core.light import activity_id_in
from jobbridge.core.status import JobStatus
from jobbridge.store.jobs import steps
from jobbridge.store.jobs.open_jobs import OpenJob, count_steps
from jobbridge.temporal.deliver.delivery import TemporalDelivery
from jobbridge.temporal.deliver.light import RUNNING
from jobbridge.temporal.reconcile.overdue import Overdue, end_overdue, overdue_workflows
from jobbridge.temporal.wire.contract import RESULT_REFERENCE

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: Questions at a time.
CONCURRENCY = 20
#: A job is delivered again so often; then it fails.
MAX_RECOVERIES = 5

_STATUS = WorkflowExecutionStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowEnd:
    """How a workflow ended.

    Attributes:
        status: None: there is no workflow of that id.
        answer: The document that a completed workflow returned.
        error: Of a failed one, as a line for people.
    """

    status: WorkflowExecutionStatus | None
    answer: Any = None
    error: str | None = None


class WorkflowReconciler:
    """Asks Temporal about jobs, and settles their rows.

    Args:
        app: Whose jobs.
        delivery: The way to Temporal.
    """

    def __init__(self, app: Celery, delivery: TemporalDelivery) -> None:
        self._app = app
        self._delivery = delivery

    def ends_of(self, jobs: Sequence[OpenJob]) -> dict[OpenJob, WorkflowEnd]:
        """Give those jobs whose workflow does not run.

        Raises:
            EngineUnavailable: Temporal does not answer, or not for the namespace.
        """
        if not jobs:
            return {}
        # A namespace that is not there also says "not found" for each workflow.
        self._delivery.check()

        async def ask(client: Client) -> list[WorkflowEnd | None]:
            limit = asyncio.Semaphore(CONCURRENCY)

            async def one(job: OpenJob) -> WorkflowEnd | None:
                async with limit:
                    return await _end_of(client, job.external_id or job.task_id)

            return await asyncio.gather(*map(one, jobs))

        ends = self._delivery.ask(ask)
        return {job: end for job, end in zip(jobs, ends, strict=True) if end is not None}

    def settle(self, job: OpenJob, end: WorkflowEnd, *, is_worker_dead: bool) -> str | None:
        """Bring the row to where its workflow is; gives how, None when it is left alone or went on meanwhile."""
        is_missing = end.status is None
        if job.status is JobStatus.PROCESSING and is_missing and not is_worker_dead:
            return None
        is_unrun = job.status is not JobStatus.PROCESSING and end.status is _STATUS.COMPLETED
        if is_missing or is_unrun:
            return self._redeliver(job, "is gone" if is_missing else "ended although the job had not run")
        event = _event(job, end)
        if not self._app.recorder.record(event).applied:
            return None
        how = type(event).__name__.lower()
        logger.warning("job.settled_by_its_workflow", extra={"job_id": job.task_id, "how": how})
        return how

    def overdue(self, *, quiet: timedelta) -> Sequence[Overdue]:
        """Give workflows that run although their jobs have ended, for so long already.

        Raises:
            EngineUnavailable: Temporal does not answer.
        """
        return overdue_workflows(self._app, self._delivery, quiet=quiet)

    def end(self, overdue: Overdue) -> str | None:
        """End one of them as its row has ended; gives how, None when there was nothing to do.

        Raises:
            EngineUnavailable: Temporal does not answer.
        """
        return end_overdue(self._app, self._delivery, overdue)

    def _redeliver(self, job: OpenJob, why: str) -> str | None:
        reason = self._not_to_be_redelivered(job)
        stored = self._app.jobs.delivery_of(job.key)
        if reason is None and (stored is None or stored.message is None):
            reason = "its message is not kept"
        if reason is not None or stored is None or job.delivery is None:
            error = f"Its workflow {why}, and it is not sent again: {reason}."
            return "failed" if self._app.recorder.record(_failed(job, error)).applied else None
        envelope = Envelope.from_json(stored.message)
        new_delivery = uuid.uuid4()
        event = Redelivered(
            key=job.key,
            attempt=job.attempt,
            delivery=job.delivery,
            new_delivery=new_delivery,
            message=_readdressed(envelope, str(new_delivery)).to_json(),
        )
        with self._app.database.transaction() as connection:
            if not self._app.recorder.record(event, connection).applied:
                return None
            steps.note(connection, job.key, steps.RECOVERED, {"reason": f"The workflow {why}."})
        logger.warning("job.delivered_again", extra={"job_id": job.task_id, "reason": why})
        return "redelivered"

    def _not_to_be_redelivered(self, job: OpenJob) -> str | None:
        if job.status is JobStatus.PROCESSING and is_at_most_once(self._app.tasks.get(job.type)):
            return "its task is not to be run twice (acks_late=False)"
        if count_steps(self._app.database, job.key, steps.RECOVERED) >= MAX_RECOVERIES:
            return f"that was done {MAX_RECOVERIES} times"
        return None


async def _end_of(client: Client, external_id: str) -> WorkflowEnd | None:
    """Tell how the workflow, or an activity without one, ended; None while it runs."""
    if activity_id := activity_id_in(external_id):
        return await _end_of_activity(client.get_activity_handle(activity_id))
    workflow_id = external_id
    try:
        description = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return WorkflowEnd(status=None)
        raise
    if description.status in {None, _STATUS.RUNNING, _STATUS.CONTINUED_AS_NEW}:
        return None
    return await _outcome(client, description)


async def _outcome(client: Client, description: WorkflowExecutionDescription) -> WorkflowEnd:
    handle = client.get_workflow_handle(description.id, run_id=description.run_id)
    try:
        answer = await handle.result(follow_runs=False)
    except WorkflowFailureError as failure:
        return WorkflowEnd(status=description.status, error=_described(failure.cause))
    return WorkflowEnd(status=description.status, answer=answer)


async def _end_of_activity(handle: ActivityHandle[Any]) -> WorkflowEnd | None:
    try:
        description = await handle.describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return WorkflowEnd(status=None)
        raise
    if description.status in RUNNING:
        return None
    status = getattr(_STATUS, description.status.name)
    try:
        return WorkflowEnd(status=status, answer=await handle.result())
    except ActivityFailureError as failure:
        return WorkflowEnd(status=status, error=_described(failure.cause))


def _described(error: BaseException) -> str:
    kind = error.type if isinstance(error, ApplicationError) and error.type else type(error).__name__
    return f"{kind}: {error.message if isinstance(error, ApplicationError) else error}"


def _event(job: OpenJob, end: WorkflowEnd) -> JobEvent:
    answer = end.answer if isinstance(end.answer, dict) else {}
    match end.status:
        case _STATUS.COMPLETED if answer.get("success"):
            result = answer.get("result")
            return Completed(
                key=job.key, attempt=job.attempt, result=None if result == dict(RESULT_REFERENCE) else result
            )
        case _STATUS.COMPLETED:
            return _cancelled(job, str(answer.get("error") or "cancelled"))
        case _STATUS.CANCELED:
            return _cancelled(job, "The workflow was cancelled.")
        case _STATUS.TERMINATED:
            return _cancelled(job, "The workflow was terminated.", cancelled_by="temporal")
        case _STATUS.TIMED_OUT:
            return _failed(job, "TimeoutError: The workflow timed out in Temporal.")
        case _:
            return _failed(job, end.error or "The workflow failed.")


def _cancelled(job: OpenJob, reason: str, *, cancelled_by: str | None = None) -> Cancelled:
    # By its delivery: the job may have gone on by another one, or on another engine, since the row was read.
    return Cancelled(key=job.key, delivery=job.delivery, reason=reason, cancelled_by=cancelled_by)


def _failed(job: OpenJob, error: str) -> Failed:
    is_running = job.status is JobStatus.PROCESSING
    return Failed(
        key=job.key,
        attempt=job.attempt if is_running else None,
        waiting_at=None if is_running else job.attempt,
        delivery=job.delivery,
        error=error,
    )


def _readdressed(envelope: Envelope, delivery: str) -> Envelope:
    header = {**(envelope.headers.get(HEADER) or {}), "delivery": delivery}
    return replace(envelope, delivery=delivery, headers={**envelope.headers, HEADER: header})

"""Ends workflows, and activities without one, that still run although the row of their job has ended.

The row decides: what is final there stays so. Its workflow runs on where it could not be told (Temporal was away when
the job was cancelled), or cannot hear (its tasks fail again and again). It is told how the row ended, and ends so
itself; one whose tasks fail is terminated. An activity without a workflow is cancelled: it hears nothing else.

Only what is proven to be this installation's is touched: the row names the very run, or the run has the very delivery
that the row has. A name alone proves nothing, since others may use the same namespace and queues.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from temporalio.client import ActivityExecution, Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.core.light import activity_id_in, external_id_of
from jobbridge.core.status import JobStatus
from jobbridge.store.jobs.ends import EndedJob, ended_for_engine
from jobbridge.store.jobs.rows import JobRow
from jobbridge.temporal.deliver import light
from jobbridge.temporal.deliver.delivery import TemporalDelivery
from jobbridge.temporal.reconcile.executions import running_activities, running_workflows
from jobbridge.temporal.wire.contract import END_JOB, MESSAGE_MEMO, RESULT_REFERENCE
from jobbridge.temporal.wire.messages import bounded
from jobbridge.temporal.wire.payloads import if_readable
from jobbridge.temporal.wire.signals import ToldEnd

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: So many running workflows, and so many activities, are looked at.
LIMIT = 20_000
#: Rows asked for in one statement.
BATCH = 1_000
#: A workflow hears of its job's end after the row.
QUIET = timedelta(seconds=30)
#: A workflow's task that has failed so often fails again.
HOPELESS = 3

_Running = WorkflowExecution | ActivityExecution


@dataclass(frozen=True, kw_only=True, slots=True)
class Overdue:
    """A workflow, or an activity without one, that runs although its job has ended."""

    job: EndedJob
    run_id: str | None

    def __str__(self) -> str:
        return f"{self.job.engine_id} ({self.job.status.value})"


def overdue_workflows(app: Celery, delivery: TemporalDelivery, *, quiet: timedelta = QUIET) -> list[Overdue]:
    """Find them, those that are proven to be of this installation.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """
    before = datetime.now(UTC) - quiet
    found: dict[str, _Running] = {
        each.id: each for each in running_workflows(app, delivery, limit=LIMIT, before=before)
    }
    for activity in running_activities(app, delivery, limit=LIMIT, before=before):
        found[external_id_of(activity.activity_id)] = activity
    pairs: list[tuple[_Running, EndedJob]] = []
    ids = list(found)
    for start in range(0, len(ids), BATCH):
        ended = ended_for_engine(app.database, ids[start : start + BATCH], quiet=quiet)
        pairs += [(found[job.engine_id], job) for job in ended]

    async def proven(client: Client) -> list[Overdue]:
        return [
            Overdue(job=job, run_id=_run_of(running))
            for running, job in pairs
            if await _is_of(client, running, job)
        ]

    return delivery.ask(proven) if pairs else []


def _run_of(running: _Running) -> str | None:
    return running.run_id if isinstance(running, WorkflowExecution) else running.activity_run_id


async def _is_of(client: Client, running: _Running, job: EndedJob) -> bool:
    runs = {_run_of(running)}
    if isinstance(running, WorkflowExecution):
        runs.add(running.raw_info.first_run_id)
    if job.external_run_id is not None and job.external_run_id in runs:
        return True
    delivery = await _delivery_of(client, running)
    return delivery is not None and delivery == str(job.delivery)


async def _delivery_of(client: Client, running: _Running) -> str | None:
    if isinstance(running, WorkflowExecution):
        message = await if_readable(running.memo_value(MESSAGE_MEMO, default=None))
        return message.get("delivery") if isinstance(message, dict) else None
    try:
        told = await light.running(client, running.activity_id)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    return None if told is None or told[1] != running.activity_run_id else told[0]


def end_overdue(app: Celery, delivery: TemporalDelivery, overdue: Overdue) -> str | None:
    """End what runs as its row has ended; gives how, None when there was nothing to do.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """
    row = app.jobs.get(overdue.job.key)
    if row is None or not row.status.is_final or row.delivery != overdue.job.delivery:
        return None  # it runs again
    told = _end_of(row)
    activity_id = activity_id_in(overdue.job.engine_id)

    async def end(client: Client) -> str | None:
        if activity_id is not None:
            why = f"Its job is {row.status.value}."
            return (
                "cancelled" if await light.cancel(client, activity_id, why, run_id=overdue.run_id) else None
            )
        handle = client.get_workflow_handle(overdue.job.engine_id, run_id=overdue.run_id)
        description = await handle.describe()
        if description.status is not WorkflowExecutionStatus.RUNNING:
            return None
        if description.raw_description.pending_workflow_task.attempt >= HOPELESS:
            await handle.terminate(reason=f"Its job is {row.status.value}, and its tasks fail.")
            return "terminated"
        await handle.signal(END_JOB, told.to_json())
        return "told"

    async def end_if_there(client: Client) -> str | None:
        try:
            return await end(client)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    how = delivery.ask(end_if_there)
    if how is not None:
        logger.warning("workflow.ended_by_its_row", extra={"job_id": overdue.job.engine_id, "how": how})
    return how


def _end_of(row: JobRow) -> ToldEnd:
    if row.status is JobStatus.FAILED:
        name, _, text = (row.error or "failed").partition(": ")
        return ToldEnd(status="failed", error=text or name, error_type=name)
    if row.status is JobStatus.COMPLETED:
        return ToldEnd(status="completed", result=bounded(row.result, RESULT_REFERENCE))
    return ToldEnd(status=row.status.value, error=row.cancel_reason or row.error)

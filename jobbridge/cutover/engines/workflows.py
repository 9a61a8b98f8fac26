"""What Temporal still has of jobs that have gone from it, and whether it has those that came.

A workflow whose job has gone holds an old delivery: it starts nothing, and ends by itself when it is due. That may be
in a year, so it is ended here. One whose activity runs at this moment is left to that, which ends the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio.api.enums.v1 import ActivityExecutionStatus, PendingActivityState
from temporalio.api.workflowservice.v1 import DescribeActivityExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.core.keys import job_id_for
from jobbridge.core.light import activity_id_in, external_id_of
from jobbridge.cutover.engines.patience import in_portions, patiently
from jobbridge.store.moves import jobs as moves
from jobbridge.temporal.deliver import light
from jobbridge.temporal.reconcile.executions import running_activities, running_workflows
from jobbridge.temporal.wire.contract import MESSAGE_MEMO

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.moves.jobs import MovableJob
    from jobbridge.temporal.deliver.delivery import TemporalDelivery

logger = logging.getLogger(__name__)

_One = TypeVar("_One")
_Answer = TypeVar("_Answer")

#: Questions at a time.
CONCURRENCY = 20
#: In one call to the client's thread, which has ten seconds.
PORTION = 100
#: A page of a list: a server that starts thousands of workflows meanwhile answers it last.
_PAGE_WITHIN = timedelta(seconds=60)
#: So many that run are looked at.
LIMIT = 50_000

_STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
_REASON = "Its job has gone to Celery."


class _Patiently:
    """The way to Temporal, for long lists: each page is asked for again by itself, and not all of them."""

    def __init__(self, delivery: TemporalDelivery) -> None:
        self._delivery = delivery

    def ask(self, work: Callable[[Client], Awaitable[_Answer]]) -> _Answer:
        return patiently(lambda: self._delivery.ask(work, timeout=_PAGE_WITHIN))


@dataclass(frozen=True, kw_only=True, slots=True)
class Former:
    """Where a job was, before it went to Celery.

    Attributes:
        external_id: Of its workflow, or activity.
        run_id: Which run of it the row named; None: none.
        delivery: By which it was sent then.
    """

    external_id: str
    run_id: str | None
    delivery: str | None


def former_of(job: MovableJob) -> Former:
    """Give where a job was that has just been moved."""
    return Former(
        external_id=job.external_id or job.task_id,
        run_id=job.external_run_id,
        delivery=str(job.delivery),
    )


def end_workflows(delivery: TemporalDelivery, former: Sequence[Former]) -> int:
    """End what runs of jobs that have gone; gives how many were ended.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """

    def end_all(portion: Sequence[Former]) -> list[bool]:
        return delivery.ask(lambda client: _each(_end, client, portion))

    return sum(in_portions(end_all, former, size=PORTION))


def left_behind(app: Celery, delivery: TemporalDelivery) -> list[Former]:
    """Find what runs although its job has gone to Celery: whoever moved that was killed before it could end it.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """
    asked, now = _Patiently(delivery), datetime.now(UTC)
    ids = [each.id for each in running_workflows(app, asked, limit=LIMIT)]
    ids += [
        external_id_of(each.activity_id) for each in running_activities(app, asked, limit=LIMIT, before=now)
    ]
    found: dict[str, Former] = {}
    for start in range(0, len(ids), 1000):
        portion = ids[start : start + 1000]
        job_ids = [job_id_for(activity_id_in(each) or each) for each in portion]
        with app.database.connection() as connection:
            rows = moves.former(connection, portion, job_ids)
        for task_id, external_id, note in rows:
            known_as = note.get("external_id") or external_id or task_id
            if known_as in portion and note.get("to") == "celery":
                found[known_as] = Former(
                    external_id=known_as, run_id=note.get("external_run_id"), delivery=note.get("delivery")
                )
    return list(found.values())


def missing(app: Celery, delivery: TemporalDelivery, jobs: Sequence[MovableJob]) -> list[MovableJob]:
    """Give those jobs of which nothing runs in Temporal.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """

    def ask(portion: Sequence[MovableJob]) -> list[bool]:
        ids = [job.external_id or job.task_id for job in portion]
        return delivery.ask(lambda client: _each(_runs, client, ids))

    answers = in_portions(ask, jobs, size=PORTION)
    return [job for job, runs in zip(jobs, answers, strict=True) if not runs]


async def _each(
    work: Callable[[Client, _One], Awaitable[bool]], client: Client, items: Sequence[_One]
) -> list[bool]:
    limit = asyncio.Semaphore(CONCURRENCY)

    async def one(item: _One) -> bool:
        async with limit:
            return await work(client, item)

    return await asyncio.gather(*map(one, items))


async def _runs(client: Client, external_id: str) -> bool:
    try:
        if activity_id := activity_id_in(external_id):
            return await light.running(client, activity_id) is not None
        description = await client.get_workflow_handle(external_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return description.status is WorkflowExecutionStatus.RUNNING


async def _end(client: Client, former: Former) -> bool:
    try:
        if activity_id := activity_id_in(former.external_id):
            return await _end_activity(client, activity_id, former)
        return await _end_workflow(client, former)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise


async def _end_workflow(client: Client, former: Former) -> bool:
    description: Any = await client.get_workflow_handle(former.external_id).describe()
    if description.status is not WorkflowExecutionStatus.RUNNING:
        return False
    if any(each.state == _STARTED for each in description.raw_description.pending_activities):
        return False
    runs = {description.run_id, description.raw_description.workflow_execution_info.first_run_id}
    if former.run_id not in runs:
        # The row did not know the run yet; others may use the same namespace and ids.
        message = await description.memo_value(MESSAGE_MEMO, default=None)
        if (
            not isinstance(message, dict)
            or former.delivery is None
            or message.get("delivery") != former.delivery
        ):
            return False
    handle = client.get_workflow_handle(former.external_id, run_id=description.run_id)
    await handle.terminate(reason=_REASON)
    return True


async def _end_activity(client: Client, activity_id: str, former: Former) -> bool:
    request = DescribeActivityExecutionRequest(
        namespace=client.namespace, activity_id=activity_id, include_input=True
    )
    answer = await client.workflow_service.describe_activity_execution(request)
    if answer.info.status != ActivityExecutionStatus.ACTIVITY_EXECUTION_STATUS_RUNNING:
        return False
    # A worker that runs it would hear of a cancellation, and take it for the end of the job.
    if answer.info.run_state == _STARTED:
        return False
    told = await light.running(client, activity_id)
    if told is None or not ({former.run_id, former.delivery} - {None}) & set(told):
        return False
    await client.get_activity_handle(activity_id, run_id=told[1]).terminate(reason=_REASON)
    return True

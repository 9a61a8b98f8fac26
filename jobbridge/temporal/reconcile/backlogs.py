"""What waits in Temporal's task queues, for a list that waits for nobody long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue, TaskQueueStats
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from jobbridge.core.keys import Engine
from jobbridge.errors import EngineUnavailable
from jobbridge.temporal.deliver.delivery import TemporalDelivery, task_queue_for

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: A job waits as a task of its workflow before it waits as an activity.
_TYPES = (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)
#: Questions under way at a time.
_AT_ONCE = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """What waits in one queue, as Temporal reckons it: approximately.

    Attributes:
        tasks: Of workflows and activities together.
        oldest: For how long the first of them has waited.
    """

    tasks: int
    oldest: timedelta


def backlogs(app: Celery, queues: Sequence[str], *, patience: timedelta) -> Mapping[str, Backlog]:
    """Give what waits in these queues (Celery's names), of as many as Temporal answers for in time.

    Questions that are under way go on for a while, and the connection stays, so that the next who asks has more.

    Raises:
        EngineUnavailable: Not one answer: Temporal cannot be reached, refuses, or is too slow.
    """
    delivery = app.delivery(Engine.TEMPORAL)
    assert isinstance(delivery, TemporalDelivery)
    client = delivery.client
    found: dict[str, Backlog] = {}  # written on the client's thread, and copied whole here

    async def ask() -> None:
        own, turn = await client.connected(), asyncio.Semaphore(_AT_ONCE)

        async def one(queue: str) -> None:
            async with turn:
                found[queue] = await _backlog(own, task_queue_for(app, queue))

        # One refusal does not end the others.
        asked = asyncio.gather(*map(one, queues), return_exceptions=True)
        refused = await asyncio.wait_for(asked, 5 * patience.total_seconds())
        for error in filter(None, refused):
            raise error

    try:
        client.submit(ask()).result(timeout=patience.total_seconds())
    except (NoAnswer, TimeoutError) as error:
        if not found:
            address, seconds = app.settings.temporal_address, patience.total_seconds()
            raise EngineUnavailable(
                f"Temporal at {address} has not answered within {seconds:g} s.",
                hint="Look again; if that lasts, run `jobbridge doctor`.",
            ) from error
    except RPCError as error:
        if not found:
            raise EngineUnavailable(
                f"Temporal did not say what waits: {error.message}.", hint="Run `jobbridge doctor`."
            ) from error
    return dict(found)


async def _backlog(client: Client, task_queue: str) -> Backlog:
    answers = await asyncio.gather(*(_stats(client, task_queue, type_) for type_ in _TYPES))
    return Backlog(
        tasks=sum(stats.approximate_backlog_count for stats in answers),
        oldest=max(stats.approximate_backlog_age.ToTimedelta() for stats in answers),
    )


async def _stats(client: Client, task_queue: str, type_: TaskQueueType.ValueType) -> TaskQueueStats:
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=type_,
        report_stats=True,
    )
    answer = await client.workflow_service.describe_task_queue(request)
    return answer.stats

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
from jobbridge.temporal.delivery import TemporalDelivery, task_queue_for

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
    """Give what waits in these queues (Celery's names).

    Who has no answer in time is told so; the connection is gone on with, so that the next one has it.

    Raises:
        EngineUnavailable: Temporal cannot be reached, refuses, or does not answer in time.
    """
    delivery = app.delivery(Engine.TEMPORAL)
    assert isinstance(delivery, TemporalDelivery)
    client = delivery.client

    async def ask() -> dict[str, Backlog]:
        own, turn = await client.connected(), asyncio.Semaphore(_AT_ONCE)

        async def one(queue: str) -> Backlog:
            async with turn:
                return await _backlog(own, task_queue_for(app, queue))

        found = await asyncio.wait_for(asyncio.gather(*map(one, queues)), 5 * patience.total_seconds())
        return dict(zip(queues, found, strict=True))

    try:
        return client.submit(ask()).result(timeout=patience.total_seconds())
    except (NoAnswer, TimeoutError) as error:
        told = f"Temporal at {app.settings.temporal_address} has not answered within {patience.total_seconds():g} s."
        raise EngineUnavailable(told, hint="Look again; if that lasts, run `jobbridge doctor`.") from error
    except RPCError as error:
        raise EngineUnavailable(
            f"Temporal did not say what waits: {error.message}.", hint="Run `jobbridge doctor`."
        ) from error


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

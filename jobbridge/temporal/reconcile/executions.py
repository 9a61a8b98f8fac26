"""The running workflows of this installation, and its activities without one, as Temporal lists them.

Others may use the namespace, and even the same queue names: what is listed here may be this installation's, and whoever
changes something has to see to it that it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from temporalio.client import (
    ActivityExecution,
    ActivityExecutionAsyncIterator,
    Client,
    WorkflowExecution,
    WorkflowExecutionAsyncIterator,
)
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.core.keys import Engine
from jobbridge.temporal.deliver.delivery import task_queue_for
from jobbridge.temporal.wire.contract import EXECUTE_JOB_HANDLER, WORKFLOW

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

Answer = TypeVar("Answer")


class Asked(Protocol):
    """The way to Temporal: its delivery, or one that asks with more patience."""

    def ask(self, work: Callable[[Client], Awaitable[Answer]]) -> Answer:
        """Do several questions on the client's thread."""
        ...


#: Each page is a call of its own, and a thousand at a time is more than a busy server lists in ten seconds.
_PAGE = 200
#: Says a server that has no activities without a workflow.
_UNKNOWN = {RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.INVALID_ARGUMENT}


def running_workflows(
    app: Celery, delivery: Asked, *, limit: int, before: datetime | None = None
) -> list[WorkflowExecution]:
    """Give running workflows on this installation's task queues, the newest first.

    Args:
        app: Whose.
        delivery: The way to Temporal.
        limit: At most so many are looked at.
        before: Only those that started before it.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """
    query = f"WorkflowType = '{WORKFLOW}' AND ExecutionStatus = 'Running'"
    if before is not None:
        query += f" AND StartTime < '{before.isoformat()}'"

    own = task_queues_of(app)
    listed = _listed(delivery, lambda client: client.list_workflows(query, page_size=_PAGE))
    return [each for each in islice(listed, limit) if each.task_queue in own]


def running_activities(
    app: Celery, delivery: Asked, *, limit: int, before: datetime
) -> list[ActivityExecution]:
    """Give running activities without a workflow on this installation's task queues.

    Args:
        app: Whose.
        delivery: The way to Temporal.
        limit: At most so many are looked at.
        before: Only those that were started before it.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """
    query = f"ActivityType = '{EXECUTE_JOB_HANDLER}' AND ExecutionStatus = 'Running'"

    own = task_queues_of(app)
    listed = _listed(
        delivery, lambda client: client.list_activities(query, page_size=_PAGE), may_be_unknown=True
    )
    return [each for each in islice(listed, limit) if each.task_queue in own and each.schedule_time < before]


@overload
def _listed(
    delivery: Asked,
    make_list: Callable[[Client], WorkflowExecutionAsyncIterator],
    *,
    may_be_unknown: bool = ...,
) -> Iterator[WorkflowExecution]: ...


@overload
def _listed(
    delivery: Asked,
    make_list: Callable[[Client], ActivityExecutionAsyncIterator],
    *,
    may_be_unknown: bool = ...,
) -> Iterator[ActivityExecution]: ...


def _listed(
    delivery: Asked, make_list: Callable[[Client], Any], *, may_be_unknown: bool = False
) -> Iterator[Any]:
    async def begin(client: Client) -> Any:
        return make_list(client)

    pages = delivery.ask(begin)

    async def next_page(_: Client) -> Sequence[Any]:
        try:
            await pages.fetch_next_page()
        except RPCError as error:
            if may_be_unknown and error.status in _UNKNOWN:
                return ()
            raise
        return pages.current_page or ()

    has_more = True
    while has_more:  # each page is a call of its own: all of them together may take longer than one call may
        yield from delivery.ask(next_page)
        has_more = bool(pages.next_page_token)


def task_queues_of(app: Celery) -> set[str]:
    """Name the task queues that something of this installation names."""
    named = {task_queue_for(app, queue) for queue in app.amqp.queues}
    return named | task_queues_served(app) | {app.settings.temporal_job_task_queue}


def task_queues_served(app: Celery) -> set[str]:
    """Name those that a worker of this installation serves now."""
    queues = {queue for engine, queue in app.workers.queues_served() if engine is Engine.TEMPORAL}
    return {task_queue_for(app, queue) for queue in queues}

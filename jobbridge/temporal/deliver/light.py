"""A job as an activity of its own, without a workflow (Temporal's standalone activities, servers from 1.31).

What a workflow does for a job, the activity's attempts do here: a retry, or an execution that has to be repeated,
fails the attempt in a way that Temporal tries again when it is due (`jobbridge.temporal.worker.light`).
"""

from __future__ import annotations

import functools
import logging
from datetime import UTC, datetime, timedelta

from temporalio.api.workflowservice.v1 import DescribeActivityExecutionRequest
from temporalio.client import ActivityExecutionStatus, Client
from temporalio.common import Priority, RetryPolicy
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.core.envelope import Envelope
from jobbridge.temporal.wire import contract, search_attributes
from jobbridge.temporal.wire.contract import ExecuteOrder
from jobbridge.temporal.wire.payloads import if_readable

logger = logging.getLogger(__name__)

#: For dead workers only, and without end: who counts them is the worker that has it next.
_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=1.5, maximum_interval=timedelta(seconds=10)
)


#: One that is paused waits for somebody who lets it go on.
RUNNING = frozenset({ActivityExecutionStatus.RUNNING, ActivityExecutionStatus.PAUSED})


async def start(
    client: Client, envelope: Envelope, order: ExecuteOrder, *, task_queue: str, priority: Priority
) -> str | None:
    """Start the activity of a job, now or with a delay until it is due.

    Returns:
        The id of its run; None: the server has no such activities, or they are switched off.

    Raises:
        ActivityAlreadyStartedError: One of the job's id runs.
        RPCError: What else the server answered.
    """
    due = contract.instant_of(envelope.eta)
    delay = None if due is None else due - datetime.now(UTC)
    try:
        handle = await client.start_activity(
            contract.EXECUTE_JOB_HANDLER,
            order.to_json(),
            id=envelope.id,
            task_queue=task_queue,
            heartbeat_timeout=contract.HEARTBEAT_TIMEOUT,
            start_to_close_timeout=contract.longest_run(envelope.timelimit[0]),
            retry_policy=_RETRIES,
            priority=priority,
            search_attributes=await search_attributes.attributes_of(client, envelope),
            summary=contract.cut_name(envelope.task),
            start_delay=delay if delay is not None and delay > timedelta() else None,
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.UNIMPLEMENTED:
            raise
        _say_that_there_are_none(client.service_client.config.target_host)
        return None
    return handle.run_id


async def is_offered(client: Client) -> bool:
    """Whether the server has activities without a workflow.

    Raises:
        RPCError: What else it answered.
    """
    request = DescribeActivityExecutionRequest(namespace=client.namespace, activity_id="of-nobody")
    try:
        await client.workflow_service.describe_activity_execution(request)
    except RPCError as error:
        if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.UNIMPLEMENTED):
            raise
        return error.status is RPCStatusCode.NOT_FOUND
    return True


async def running(client: Client, activity_id: str) -> tuple[str | None, str | None] | None:
    """Give the delivery that an activity was started with, and its run; None: it does not run.

    Raises:
        RPCError: There is none of that id, or whatever else the server answered.
    """
    request = DescribeActivityExecutionRequest(
        namespace=client.namespace, activity_id=activity_id, include_input=True
    )
    answer = await client.workflow_service.describe_activity_execution(request)
    if ActivityExecutionStatus(answer.info.status) not in RUNNING:
        return None
    given = await if_readable(client.data_converter.decode(answer.input.payloads))
    order = given[0] if given and isinstance(given[0], dict) else {}
    return (order.get("message") or {}).get("delivery"), answer.run_id


async def cancel(client: Client, activity_id: str, reason: str, *, run_id: str | None = None) -> bool:
    """Ask an activity to stop; False: it has ended.

    Raises:
        RPCError: There is none of that id, or whatever else the server answered.
    """
    try:
        await client.get_activity_handle(activity_id, run_id=run_id).cancel(reason=contract.cut(reason))
    except RPCError as error:
        if error.status is RPCStatusCode.FAILED_PRECONDITION:
            return False
        raise
    return True


@functools.cache
def _say_that_there_are_none(target: str) -> None:
    logger.warning(
        "Temporal at %s has no activities without a workflow (servers from 1.31 have, unless they are switched off): "
        "jobs with temporal_light are sent with one.",
        target,
    )

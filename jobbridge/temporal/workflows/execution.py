"""One execution of a job: one activity, and what keeps watch over it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityHandle

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import ExecuteOrder

#: A worker that says nothing for so long is dead. The activity tells that it lives every second.
HEARTBEAT_TIMEOUT = timedelta(seconds=8)
#: How many workers, and how many pool processes, one message may take with it before it counts as poison.
MAX_LOST = 5
#: The pool enforces time limits; Temporal's are the backstop. Room for waiting in the worker (rate limits).
TIME_LIMIT_GRACE = timedelta(minutes=15)
NO_LIMIT = timedelta(days=3650)


def start_execution(order: ExecuteOrder) -> ActivityHandle[Any]:
    """Begin one execution of the job: one activity."""
    message = order.message or {}
    hard_limit = (message.get("timelimit") or [None])[0]
    return workflow.start_activity(
        contract.EXECUTE_JOB_HANDLER,
        order.to_json(),
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        start_to_close_timeout=timedelta(seconds=hard_limit) + TIME_LIMIT_GRACE if hard_limit else NO_LIMIT,
        # For dead workers only: a handler's own retries are executions of their own.
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=1), backoff_coefficient=1.5, maximum_attempts=MAX_LOST
        ),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        priority=Priority(priority_key=contract.temporal_priority(message.get("priority")))
        if message
        else Priority.default,
        summary=contract.cut_name(str(message.get("task") or order.job.job_name)),
    )

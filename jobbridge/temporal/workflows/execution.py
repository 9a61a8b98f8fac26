"""One execution of a job: one activity, and what keeps watch over it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityHandle

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import ExecuteOrder

#: How many workers, and how many pool processes, one message may take with it before it counts as poison, unless the
#: message says otherwise.
MAX_LOST = 5
_MOST_LOST = 1000


def max_lost(message: Mapping[str, Any] | None) -> int:
    """Give how many workers a message may take with it."""
    told = (message or {}).get("max_crashes")
    return told if isinstance(told, int) and 1 <= told <= _MOST_LOST else MAX_LOST


def start_execution(order: ExecuteOrder) -> ActivityHandle[Any]:
    """Begin one execution of the job: one activity."""
    message = order.message or {}
    hard_limit = (message.get("timelimit") or [None])[0]
    return workflow.start_activity(
        contract.EXECUTE_JOB_HANDLER,
        order.to_json(),
        heartbeat_timeout=contract.HEARTBEAT_TIMEOUT,
        start_to_close_timeout=contract.longest_run(hard_limit),
        # For dead workers only: a handler's own retries are executions of their own.
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=1), backoff_coefficient=1.5, maximum_attempts=max_lost(message)
        ),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        priority=Priority(priority_key=contract.temporal_priority(message.get("priority")))
        if message
        else Priority.default,
        summary=contract.cut_name(str(message.get("task") or order.job.job_name)),
    )

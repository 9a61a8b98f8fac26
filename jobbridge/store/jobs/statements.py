"""From events to the statements that apply them, and their parameters."""

from __future__ import annotations

from typing import Any, LiteralString, assert_never

from jobbridge.core import events
from jobbridge.core.status import JobStatus
from jobbridge.store.jobs import submit, transitions
from jobbridge.store.values import as_jsonb, as_message, as_text

_Params = dict[str, Any]


def statement_of(event: events.JobEvent) -> tuple[LiteralString, _Params]:
    """Give the statement that applies `event`, and its parameters."""
    key = {"tenant": event.key.tenant, "job_id": event.key.job_id}
    match event:
        case events.Submitted():
            return submit.SUBMIT, key | _submitted(event)
        case events.Accepted():
            return transitions.ACCEPT, key | {
                "delivery": event.delivery,
                "engine": event.engine.value,
                "external_id": event.external_id,
                "external_run_id": event.external_run_id,
                "is_alone": event.is_alone,
            }
        case events.FellBack():
            return transitions.FALL_BACK, key | {
                "delivery": event.delivery,
                "new_delivery": event.new_delivery,
                "engine": event.engine.value,
            }
        case events.Started():
            return transitions.START, key | _started(event)
        case events.Progressed():
            progress = min(100.0, max(0.0, event.progress))
            said = {"attempt": event.attempt, "progress": progress, "message": as_text(event.message)}
            return transitions.PROGRESS, key | said
        case events.AttemptFailed():
            return transitions.FAIL_ATTEMPT, key | _failure(event) | {"attempt": event.attempt}
        case events.Completed():
            statement = transitions.COMPLETE_PART if event.is_part else transitions.COMPLETE
            return statement, key | _result(event) | {"attempt": event.attempt}
        case events.Failed():
            return transitions.FAIL, key | _failed(event)
        case events.Requeued():
            return transitions.RELEASE, key | _released(event, reason=event.reason, step=JobStatus.FAILED)
        case events.Replaced():
            return transitions.RELEASE, key | _released(event, reason=None, step=JobStatus.COMPLETED)
        case events.AwaitsChildren():
            return transitions.AWAIT_CHILDREN, key | {"attempt": event.attempt}
        case events.Redelivered():
            return transitions.REDELIVER, key | {
                "attempt": event.attempt,
                "delivery": event.delivery,
                "new_delivery": event.new_delivery,
                "message": as_message(event.message),
            }
        case events.Moved():
            return transitions.MOVE, key | {
                "attempt": event.attempt,
                "delivery": event.delivery,
                "new_delivery": event.new_delivery,
                "engine": event.engine.value,
                "message": as_message(event.message),
                "external_id": event.external_id,
            }
        case events.Cancelled():
            who = {"reason": as_text(event.reason), "cancelled_by": as_text(event.cancelled_by)}
            return transitions.CANCEL, key | who | {"delivery": event.delivery}
        case events.Expired():
            reason = "Its time to live passed before it ran."
            return transitions.DROP, key | {"status": JobStatus.EXPIRED.value, "reason": reason}
        case events.Skipped():
            return transitions.DROP, key | {
                "status": JobStatus.SKIPPED.value,
                "reason": as_text(event.reason),
            }
        case _:
            assert_never(event)


def _submitted(event: events.Submitted) -> _Params:
    return {
        "task_id": event.task_id,
        "type": event.type,
        "status": event.status.value,
        "engine": event.engine.value,
        "delivery": event.delivery,
        "queue": event.queue,
        "continues": event.continues.attempt if event.continues else None,
        "is_retry": event.continues is not None and event.continues.is_retry,
        "suspends": int(event.continues is not None and event.continues.is_suspension),
        "priority": event.priority,
        "run_at": event.run_at,
        "expires_at": event.expires_at,
        "singleton_key": event.singleton_key,
        "max_attempts": event.max_attempts,
        "user_id": event.user_id,
        "metadata": as_jsonb(event.metadata),
        "external_id": event.external_id,
        "message": as_message(event.message),
        "is_relayed": event.is_relayed,
        "broker": event.broker,
        "root_id": event.root_id,
        "parent_id": event.parent_id,
        "group_id": event.group_id,
        "chord_id": event.chord_id,
        "chord_index": event.chord_index,
    }


def _started(event: events.Started) -> _Params:
    return {
        "task_id": event.task_id,
        "type": event.type,
        "engine": event.engine.value,
        "delivery": event.delivery,
        "queue": event.queue,
        "worker": event.worker,
        "worker_number": event.worker_number,
        "gone": [],
        "redelivered": event.redelivered,
        "goes_back": event.goes_back,
        "max_attempts": event.max_attempts,
        "external_id": event.external_id,
        "external_run_id": event.external_run_id,
        "metadata": as_jsonb(event.metadata),
        "step_metadata": as_jsonb({"worker": event.worker, "engine": event.engine.value}),
    }


def _failure(event: events.AttemptFailed | events.Failed) -> _Params:
    return {"error": as_text(event.error), "traceback": as_text(event.traceback)}


def _result(event: events.Completed | events.Failed) -> _Params:
    return {
        "result": None if event.result is None else as_jsonb(event.result),
        "result_payload": event.result_payload,
        "result_type": event.result_type,
    }


def _failed(event: events.Failed) -> _Params:
    return (
        _failure(event)
        | _result(event)
        | {
            "attempt": event.attempt,
            "delivery": event.delivery,
            "waiting_at": event.waiting_at,
            "type": event.type,
            "task_id": event.task_id,
            "engine": event.engine.value,
            "external_id": event.external_id or event.task_id,
            "root_id": event.root_id,
            "parent_id": event.parent_id,
            "chord_id": event.chord_id,
            "chord_index": event.chord_index,
            "breaks": not event.tells_chain,
        }
    )


def _released(event: events.Requeued | events.Replaced, *, reason: str | None, step: JobStatus) -> _Params:
    is_replaced = isinstance(event, events.Replaced)
    return {
        "attempt": event.attempt,
        "keeps_delivery": not is_replaced,
        "reason": as_text(reason),
        "step_status": step.value,
        "step_metadata": as_jsonb({"replaced": True} if is_replaced else {"requeued": True}),
    }

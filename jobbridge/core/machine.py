"""The status machine: what an event makes of a job. Pure, so that it can be read, tested and trusted.

`jobbridge.recording` applies the same rules in SQL, one guarded statement per event; a property test holds the two
together. When the SQL refuses an event, the recorder asks this module why.

A job is held by at most one attempt: `processing` with the row's attempt number. Every start takes a new number, so
whatever an earlier attempt still has to say no longer fits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never
from uuid import UUID

from jobbridge.core.events import (
    Accepted,
    AttemptFailed,
    AwaitsChildren,
    Cancelled,
    Completed,
    Expired,
    Failed,
    FellBack,
    JobEvent,
    Progressed,
    Redelivered,
    Replaced,
    Requeued,
    Skipped,
    Started,
    Submitted,
)
from jobbridge.core.status import FINAL, WAITING, JobStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """What of a job's row decides about events."""

    status: JobStatus
    attempt: int = 0
    delivery: UUID | None = None
    run_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What an event does.

    Attributes:
        applied: False: refused, and `state` is as it was.
        state: The row afterwards; None when there is no row.
        reason: Why it was refused.
        outcome: For Submitted: created, restarted, continued, adopted, duplicate or repeated.
    """

    applied: bool
    state: JobState | None
    reason: str | None = None
    outcome: str | None = None


def decide(state: JobState | None, event: JobEvent, *, now: datetime) -> Decision:
    """Say what `event` makes of a job in `state`.

    Args:
        state: The job as it is; None when it has no row.
        event: What happened.
        now: An aware instant; what is due by then is not `scheduled` any more.
    """
    match event:
        case Submitted():
            return _submitted(state, event, now)
        case Started():
            return _started(state, event)
        case Failed(attempt=None):
            return _failed_outside_an_attempt(state, event)
    if state is None:
        return _refuse(None, "there is no such job")
    match event:
        case Accepted():
            return _accepted(state, event, now)
        case FellBack():
            return _fell_back(state, event, now)
        case Progressed():
            return _held(state, event.attempt, state.status)
        case AttemptFailed():
            return _attempt_failed(state, event)
        case Completed():
            return _held(state, event.attempt, JobStatus.COMPLETED)
        case Failed():
            return _failed_attempt(state, event)
        case Requeued():
            return _held(state, event.attempt, JobStatus.QUEUED)
        case Redelivered():
            return _redelivered(state, event)
        case Replaced():
            return _given_up(state, event.attempt, JobStatus.QUEUED)
        case AwaitsChildren():
            return _given_up(state, event.attempt, JobStatus.PROCESSING)
        case Cancelled():
            return _refuse(state) if state.status in FINAL else _become(state, JobStatus.CANCELLED)
        case Expired():
            return _before_it_runs(state, JobStatus.EXPIRED)
        case Skipped():
            return _before_it_runs(state, JobStatus.SKIPPED)
        case _:
            assert_never(event)


def waiting_status(status: JobStatus, run_at: datetime | None, now: datetime) -> JobStatus:
    """Tell `scheduled` from `queued` by what is due; `pending` stays."""
    if status not in {JobStatus.QUEUED, JobStatus.SCHEDULED}:
        return status
    return JobStatus.SCHEDULED if run_at is not None and run_at > now else JobStatus.QUEUED


def _submitted(state: JobState | None, event: Submitted, now: datetime) -> Decision:
    sent = event.continues
    target = JobState(
        status=waiting_status(event.status, event.run_at, now),
        attempt=state.attempt if state else sent.attempt if sent else 0,
        delivery=event.delivery,
        run_at=event.run_at,
    )
    if state is None:
        return Decision(applied=True, state=target, outcome="created")
    if state.delivery == event.delivery:
        return _refuse(state, "this delivery is already recorded", outcome="repeated")
    # The job ended under an attempt that still sends itself again (it was cancelled): that must not revive it.
    if state.status in FINAL and sent is None:
        return Decision(applied=True, state=target, outcome="restarted")
    if state.status is JobStatus.QUEUED and state.delivery is None:
        return Decision(applied=True, state=target, outcome="continued" if sent else "adopted")
    if sent and state.status is JobStatus.PROCESSING and state.attempt == sent.attempt:
        status = JobStatus.RETRYING if sent.is_retry else target.status
        return Decision(applied=True, state=replace(target, status=status), outcome="continued")
    return _refuse(state, outcome="duplicate")


def _accepted(state: JobState, event: Accepted, now: datetime) -> Decision:
    if state.delivery != event.delivery:
        return _refuse(state, "the job goes by another delivery now")
    if state.status is not JobStatus.PENDING:
        return Decision(applied=True, state=state)
    return _become(state, waiting_status(JobStatus.QUEUED, state.run_at, now))


def _fell_back(state: JobState, event: FellBack, now: datetime) -> Decision:
    if state.delivery != event.delivery:
        return _refuse(state, "the job goes by another delivery now")
    if state.status is not JobStatus.PENDING:
        return _refuse(state)
    status = waiting_status(JobStatus.QUEUED, state.run_at, now)
    return Decision(applied=True, state=replace(state, status=status, delivery=event.new_delivery))


def _started(state: JobState | None, event: Started) -> Decision:
    if state is None:
        return Decision(
            applied=True, state=JobState(status=JobStatus.PROCESSING, attempt=1, delivery=event.delivery)
        )
    if state.status in WAITING:
        if None not in (state.delivery, event.delivery) and state.delivery != event.delivery:
            return _refuse(state, "the job goes by another delivery now")
        if state.delivery is None and state.attempt > 0 and event.delivery is not None:
            # The message of the attempt that was replaced has come again: its worker died before the ack.
            return _refuse(state, "the job waits for the chain that replaced it")
    elif state.status is JobStatus.PROCESSING:
        is_same = event.delivery is not None and event.delivery == state.delivery
        if not is_same and not (event.delivery is None and event.redelivered):
            return _refuse(state, f"attempt {state.attempt} holds the job")
    else:
        return _refuse(state)
    return Decision(
        applied=True,
        state=replace(
            state,
            status=JobStatus.PROCESSING,
            attempt=state.attempt + 1,
            delivery=event.delivery or state.delivery,
        ),
    )


def _attempt_failed(state: JobState, event: AttemptFailed) -> Decision:
    # The retry's own Submitted usually comes first: then the error is still to be kept.
    if state.status is JobStatus.RETRYING and state.attempt == event.attempt:
        return Decision(applied=True, state=state)
    return _held(state, event.attempt, JobStatus.RETRYING)


def _failed_attempt(state: JobState, event: Failed) -> Decision:
    if event.delivery is not None and event.delivery != state.delivery:
        return _refuse(state, "the job goes by another delivery now")
    return _held(state, event.attempt or 0, JobStatus.FAILED)


def _failed_outside_an_attempt(state: JobState | None, event: Failed) -> Decision:
    if state is None:
        if event.type is None or event.task_id is None:
            return _refuse(None, "there is no such job, and its type and task id are not told")
        return Decision(applied=True, state=JobState(status=JobStatus.FAILED, delivery=event.delivery))
    if event.delivery is not None and event.delivery != state.delivery:
        return _refuse(state, "the job goes by another delivery now")
    if event.waiting_at is not None and (state.status not in WAITING or state.attempt != event.waiting_at):
        return _refuse(state, f"the job is {state.status} after {state.attempt} attempts")
    return _refuse(state) if state.status in FINAL else _become(state, JobStatus.FAILED)


def _redelivered(state: JobState, event: Redelivered) -> Decision:
    if state.delivery != event.delivery:
        return _refuse(state, "the job goes by another delivery now")
    if state.status in FINAL or state.attempt != event.attempt:
        return _refuse(state, f"the job is {state.status} after {state.attempt} attempts")
    return Decision(applied=True, state=replace(state, status=JobStatus.PENDING, delivery=event.new_delivery))


def _given_up(state: JobState, attempt: int, status: JobStatus) -> Decision:
    decision = _held(state, attempt, status)
    if not decision.applied or decision.state is None:
        return decision
    return replace(decision, state=replace(decision.state, delivery=None))


def _before_it_runs(state: JobState, status: JobStatus) -> Decision:
    return _become(state, status) if state.status in WAITING else _refuse(state)


def _held(state: JobState, attempt: int, status: JobStatus) -> Decision:
    if state.status is JobStatus.PROCESSING and state.attempt == attempt:
        return _become(state, status)
    if state.status is JobStatus.PROCESSING:
        return _refuse(state, f"attempt {state.attempt} holds the job, not attempt {attempt}")
    return _refuse(state)


def _become(state: JobState, status: JobStatus) -> Decision:
    return Decision(applied=True, state=replace(state, status=status))


def _refuse(state: JobState | None, reason: str | None = None, *, outcome: str | None = None) -> Decision:
    why = reason or (f"the job is {state.status}" if state else "there is no such job")
    return Decision(applied=False, state=state, reason=why, outcome=outcome)

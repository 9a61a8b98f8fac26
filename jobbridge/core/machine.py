"""The status machine, said once: which event moves a job from where to where, and what must hold.

`MOVES` is the table. `decide` reads it, and `jobbridge.store.jobs.guards` writes the WHERE clauses of the recorder's
statements from it; a property test holds the two together. When the SQL refuses an event, the recorder asks `decide`
why. A status that is added to `WAITING` or `FINAL` is known to all of them.

A job is held by at most one attempt: `processing` with the row's attempt number. Every start takes a new number, so
whatever an earlier attempt still has to say no longer fits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import Any
from uuid import UUID

from jobbridge.core import events
from jobbridge.core.status import FINAL, OPEN, WAITING, JobStatus

_ANOTHER_DELIVERY = "the job goes by another delivery now"


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


class Guard(Enum):
    """What must hold between a job's row and an event, besides the status. In SQL: `jobbridge.store.jobs.guards`."""

    ATTEMPT = auto()  # it speaks of the row's attempt
    NO_ATTEMPT = auto()  # it speaks of none
    DELIVERY = auto()  # it speaks of the row's delivery
    DELIVERY_IF_TOLD = auto()
    NEW_DELIVERY = auto()  # it brings another one than the row's
    NO_DELIVERY = auto()  # the row has none: left by `Replaced`
    SENT_ANEW = auto()  # not from inside a running attempt
    SENT_BY_ATTEMPT = auto()  # from inside the row's
    WAITING_AS_TOLD = auto()  # if it says after how many attempts the job waits, it waits after so many
    MAY_START = auto()  # the deliveries agree, or one side has none, and the row never had one
    MAY_TAKE_OVER = auto()  # the same message again, so its former holder is dead


class Target(Enum):
    """Where a move leads that names no one status."""

    SAME = auto()
    DUE = auto()  # queued; scheduled while `run_at` is ahead
    SENT = auto()  # what the submission says, and is due
    RETRYING_OR_SENT = auto()  # retrying, if the attempt sent itself again
    PENDING_OR_DUE = auto()  # pending, if the row has its message; else as it waits, and is due


@dataclass(frozen=True, slots=True)
class Move:
    """One line of the table."""

    sources: Collection[JobStatus]
    target: JobStatus | Target
    guards: tuple[Guard, ...] = ()


_RUNNING = frozenset({JobStatus.PROCESSING})
_PENDING = frozenset({JobStatus.PENDING})


def _held(target: JobStatus | Target) -> tuple[Move, ...]:
    return (Move(_RUNNING, target, (Guard.ATTEMPT,)),)


#: The first move of an event that fits is made; if none does, it is refused.
MOVES: Mapping[type[events.JobEvent], tuple[Move, ...]] = {
    events.Submitted: (
        Move(_RUNNING, Target.RETRYING_OR_SENT, (Guard.NEW_DELIVERY, Guard.SENT_BY_ATTEMPT)),
        Move({JobStatus.QUEUED}, Target.SENT, (Guard.NEW_DELIVERY, Guard.NO_DELIVERY)),
        # A cancelled job is not revived, neither by its attempt nor by the chain that took its place: cancel is final.
        Move(FINAL - {JobStatus.CANCELLED}, Target.SENT, (Guard.NEW_DELIVERY, Guard.SENT_ANEW)),
    ),
    events.Accepted: (
        Move(_PENDING, Target.DUE, (Guard.DELIVERY,)),
        Move(frozenset(JobStatus) - _PENDING, Target.SAME, (Guard.DELIVERY,)),
    ),
    events.FellBack: (Move(_PENDING, Target.DUE, (Guard.DELIVERY,)),),
    events.Started: (
        Move(WAITING, JobStatus.PROCESSING, (Guard.MAY_START,)),
        Move(_RUNNING, JobStatus.PROCESSING, (Guard.MAY_TAKE_OVER,)),
    ),
    events.Progressed: _held(Target.SAME),
    # The retry's own Submitted usually comes first: then the error is still to be kept.
    events.AttemptFailed: (Move(_RUNNING | {JobStatus.RETRYING}, JobStatus.RETRYING, (Guard.ATTEMPT,)),),
    events.Completed: _held(JobStatus.COMPLETED),
    events.Failed: (
        Move(_RUNNING, JobStatus.FAILED, (Guard.DELIVERY_IF_TOLD, Guard.ATTEMPT)),
        Move(OPEN, JobStatus.FAILED, (Guard.DELIVERY_IF_TOLD, Guard.NO_ATTEMPT, Guard.WAITING_AS_TOLD)),
    ),
    events.Requeued: _held(JobStatus.QUEUED),
    events.Redelivered: (Move(OPEN, JobStatus.PENDING, (Guard.DELIVERY, Guard.ATTEMPT)),),
    events.Moved: (Move(WAITING, Target.PENDING_OR_DUE, (Guard.DELIVERY, Guard.ATTEMPT)),),
    events.Replaced: _held(JobStatus.QUEUED),
    events.AwaitsChildren: _held(JobStatus.PROCESSING),
    events.Cancelled: (Move(OPEN, JobStatus.CANCELLED, (Guard.DELIVERY_IF_TOLD,)),),
    events.Expired: (Move(WAITING, JobStatus.EXPIRED),),
    events.Skipped: (Move(WAITING, JobStatus.SKIPPED),),
}


def decide(state: JobState | None, event: events.JobEvent, *, now: datetime) -> Decision:
    """Say what `event` makes of a job in `state`.

    Args:
        state: The job as it is; None when it has no row.
        event: What happened.
        now: An aware instant; what is due by then is not `scheduled` any more.
    """
    if state is None:
        return _without_row(event, now)
    unmet: Guard | None = None
    for move in MOVES[type(event)]:
        if state.status not in move.sources:
            continue
        unmet = next((guard for guard in move.guards if not _HOLDS[guard](state, event)), None)
        if unmet is None:
            moved = _moved(state, event, _status(move, state, event, now))
            return Decision(applied=True, state=moved, outcome=_outcome(state, event))
    return _refused(state, event, unmet)


def is_as_left(state: JobState, event: events.JobEvent) -> bool:
    """Tell whether a row is as `event` leaves it, so that it need not come again; False for those which may."""
    match event:
        case events.Submitted():
            return state.delivery == event.delivery
        case events.FellBack() | events.Redelivered() | events.Moved():
            return state.delivery == event.new_delivery
        case events.Accepted() | events.Started() | events.Progressed() | events.AttemptFailed():
            return False  # these apply a second time
        case events.AwaitsChildren() if state.delivery is not None:
            return False
        case events.Cancelled() | events.Expired() | events.Skipped():
            attempt = None
        case _:
            attempt = event.attempt
    return state.status is MOVES[type(event)][0].target and attempt in (None, state.attempt)


def waiting_status(status: JobStatus, run_at: datetime | None, now: datetime) -> JobStatus:
    """Tell `scheduled` from `queued` by what is due; `pending` stays."""
    if status not in {JobStatus.QUEUED, JobStatus.SCHEDULED}:
        return status
    return JobStatus.SCHEDULED if run_at is not None and run_at > now else JobStatus.QUEUED


def _without_row(event: events.JobEvent, now: datetime) -> Decision:
    """Make the row, if the event can tell enough for it."""
    match event:
        case events.Submitted():
            attempt = event.continues.attempt if event.continues else 0
            made = _sent(event, attempt, waiting_status(event.status, event.run_at, now))
            return Decision(applied=True, state=made, outcome="created")
        case events.Started():
            made = JobState(status=JobStatus.PROCESSING, attempt=1, delivery=event.delivery)
        case events.Failed(attempt=None, type=str(), task_id=str()):
            made = JobState(status=JobStatus.FAILED, delivery=event.delivery)
        case _:
            return Decision(applied=False, state=None, reason="there is no such job")
    return Decision(applied=True, state=made)


#: Any: the table gives each guard only events that have what it asks for.
_HOLDS: Mapping[Guard, Callable[[JobState, Any], bool]] = {
    Guard.ATTEMPT: lambda state, event: state.attempt == event.attempt,
    Guard.NO_ATTEMPT: lambda _, event: event.attempt is None,
    Guard.DELIVERY: lambda state, event: state.delivery == event.delivery,
    Guard.DELIVERY_IF_TOLD: lambda state, event: event.delivery in (None, state.delivery),
    Guard.NEW_DELIVERY: lambda state, event: state.delivery != event.delivery,
    Guard.NO_DELIVERY: lambda state, _: state.delivery is None,
    Guard.SENT_ANEW: lambda _, event: event.continues is None,
    Guard.SENT_BY_ATTEMPT: lambda state, event: event.continues and event.continues.attempt == state.attempt,
    Guard.WAITING_AS_TOLD: lambda state, event: (
        event.waiting_at is None or (state.status in WAITING and state.attempt == event.waiting_at)
    ),
    Guard.MAY_START: lambda state, event: (
        event.delivery in (None, state.delivery) or (state.delivery is None and state.attempt == 0)
    ),
    Guard.MAY_TAKE_OVER: lambda state, event: (
        event.redelivered if event.delivery is None else event.delivery == state.delivery
    ),
}


def _status(move: Move, state: JobState, event: Any, now: datetime) -> JobStatus:  # Any: as in `_HOLDS`
    match move.target:
        case JobStatus() as status:
            return status
        case Target.SAME:
            return state.status
        case Target.DUE:
            return waiting_status(JobStatus.QUEUED, state.run_at, now)
        case Target.PENDING_OR_DUE if event.message is not None:
            return JobStatus.PENDING
        case Target.PENDING_OR_DUE:
            is_retry = state.status is JobStatus.RETRYING
            return state.status if is_retry else waiting_status(JobStatus.QUEUED, state.run_at, now)
        case Target.RETRYING_OR_SENT if event.continues.is_retry:
            return JobStatus.RETRYING
        case Target.SENT | Target.RETRYING_OR_SENT:
            return waiting_status(event.status, event.run_at, now)


def _moved(state: JobState, event: events.JobEvent, status: JobStatus) -> JobState:
    match event:
        case events.Submitted():
            is_suspended = event.continues is not None and event.continues.is_suspension
            return _sent(event, state.attempt - is_suspended, status)
        case events.Started():
            delivery = event.delivery or state.delivery
            return replace(state, status=status, attempt=state.attempt + 1, delivery=delivery)
        case events.FellBack() | events.Redelivered() | events.Moved():
            return replace(state, status=status, delivery=event.new_delivery)
        case events.Replaced() | events.AwaitsChildren():
            return replace(state, status=status, delivery=None)
        case _:
            return replace(state, status=status)


def _sent(event: events.Submitted, attempt: int, status: JobStatus) -> JobState:
    return JobState(status=status, attempt=attempt, delivery=event.delivery, run_at=event.run_at)


def _outcome(state: JobState, event: events.JobEvent) -> str | None:
    if not isinstance(event, events.Submitted):
        return None
    if state.status in FINAL:
        return "restarted"
    return "continued" if event.continues else "adopted"


def _refused(state: JobState, event: events.JobEvent, unmet: Guard | None) -> Decision:
    """Say why: by what the last move asked for that begins at this status, if there is one."""
    if isinstance(event, events.Submitted):
        if state.delivery == event.delivery:
            reason = "this delivery is already recorded"
            return Decision(applied=False, state=state, reason=reason, outcome="repeated")
        return Decision(applied=False, state=state, reason=f"the job is {state.status}", outcome="duplicate")
    match unmet:
        case Guard.DELIVERY | Guard.DELIVERY_IF_TOLD:
            reason = _ANOTHER_DELIVERY
        case Guard.MAY_START:
            # Without one: the message of the attempt that was replaced has come again, its worker died before the ack.
            is_replaced = state.delivery is None
            reason = "the job waits for the chain that replaced it" if is_replaced else _ANOTHER_DELIVERY
        case Guard.ATTEMPT | Guard.NO_ATTEMPT | Guard.MAY_TAKE_OVER if state.status is JobStatus.PROCESSING:
            reason = f"attempt {state.attempt} holds the job"
        case None:
            reason = f"the job is {state.status}"
        case _:
            reason = f"the job is {state.status} after {state.attempt} attempts"
    return Decision(applied=False, state=state, reason=reason)

"""Which fires of a schedule are due, which were missed, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from jobbridge.core.schedules.fires import next_fire
from jobbridge.core.schedules.policies import DEFAULT_CATCHUP, jitter_of
from jobbridge.core.schedules.specs import ScheduleSpec

#: Fires of one schedule that are planned at once; what is due beyond them comes with the next look.
PLAN_LIMIT = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleState:
    """What planning asks of a schedule.

    Attributes:
        next_fire_at: The first nominal instant that was not dealt with; None: there is none.
        catchup: How late a fire may be and still make its job.
        jitter: A fire comes up to so much later than its nominal instant.
    """

    schedule_id: UUID
    spec: ScheduleSpec
    zone: ZoneInfo
    next_fire_at: datetime | None
    catchup: timedelta = DEFAULT_CATCHUP
    jitter: timedelta = timedelta(0)
    is_paused: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Missed:
    """The fires from `first` to before `until`, that nobody was there to fire in time."""

    first: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be done now.

    Attributes:
        due: Nominal instants, ascending.
        next_fire_at: The next nominal instant; None: it fires no more.
        due_at: When that is due, its jitter included: when to look again. It may be past, when more is due than
            fits a plan.
    """

    due: tuple[datetime, ...] = ()
    missed: Missed | None = None
    next_fire_at: datetime | None = None
    due_at: datetime | None = None


def plan(state: ScheduleState, now: datetime, *, limit: int = PLAN_LIMIT) -> Plan:
    """Plan a schedule at an instant.

    A paused schedule has nothing due, and what falls into the pause is not made up for.
    """
    if state.is_paused or state.next_fire_at is None:
        return Plan(next_fire_at=state.next_fire_at)
    first, missed = _skip_missed(state, state.next_fire_at, now)
    due: list[datetime] = []
    while first is not None and len(due) < limit and due_at(state, first) <= now:
        due.append(first)
        first = next_fire(state.spec, state.zone, first)
    return Plan(
        due=tuple(due),
        missed=missed,
        next_fire_at=first,
        due_at=None if first is None else due_at(state, first),
    )


def begin(state: ScheduleState, now: datetime) -> Plan:
    """Plan a schedule that begins, or goes on, now: nothing is due, nothing was missed."""
    first = next_fire(state.spec, state.zone, now)
    if first is None or state.is_paused:
        return Plan(next_fire_at=first)
    return Plan(next_fire_at=first, due_at=due_at(state, first))


def due_at(state: ScheduleState, fire_at: datetime) -> datetime:
    """Give when a fire is due: its nominal instant and its jitter."""
    if not state.jitter:
        return fire_at
    following = next_fire(state.spec, state.zone, fire_at)
    return fire_at + jitter_of(state.schedule_id, fire_at, at_most=state.jitter, following=following)


def _skip_missed(
    state: ScheduleState, first: datetime, now: datetime
) -> tuple[datetime | None, Missed | None]:
    """Give the first fire that is not too late, and which ones are."""
    too_late = now - state.catchup - state.jitter
    if first >= too_late:
        return first, None
    following = next_fire(state.spec, state.zone, too_late - timedelta(microseconds=1))
    return following, Missed(first=first, until=too_late)

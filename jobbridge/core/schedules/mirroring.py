"""A schedule as Temporal takes it, so that it fires there when ours does.

Temporal's calendars follow the wall clock of a zone, but where a clock goes back they leave out, double or misplace
fires, depending on the zone (docs/decisions/0009). So:

- cron that fires each hour of each day is told in UTC, where no clock changes;
- other cron is told in its zone, with the true fires around each change of the clock added as single instants;
- what Temporal fires beyond that is no fire: `is_fire` tells, and its run makes no job.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from jobbridge.core.schedules.cron import Cron
from jobbridge.core.schedules.fires import fires_between
from jobbridge.core.schedules.intervals import Every
from jobbridge.core.schedules.specs import Once, ScheduleSpec

#: For so long the changes of the clock are told in advance; mirror again when half of it is over.
HORIZON = timedelta(days=3 * 365)

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_AROUND = timedelta(hours=3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """What to tell Temporal.

    Attributes:
        calendar: To be taken as a structured calendar (weekday 0 is Sunday), second 0, in `zone_name`.
        zone_name: Of the calendar.
        interval: To be taken as an interval and its phase.
        instants: Further single fires.
        fresh_until: From then on it should be made again; None: it stays as it is.
    """

    calendar: Cron | None = None
    zone_name: str = "UTC"
    interval: Every | None = None
    instants: tuple[datetime, ...] = ()
    fresh_until: datetime | None = None


def mirror(spec: ScheduleSpec, zone: ZoneInfo, now: datetime) -> Mirror:
    """Tell a schedule in Temporal's terms, from now on."""
    if isinstance(spec, Every):
        return Mirror(interval=spec)
    if isinstance(spec, Once):
        return Mirror(instants=(spec.at,))
    changes = list(clock_changes(zone, now - _HOUR, now + HORIZON))
    shift = _common_shift(zone, [now, *changes])
    if spec.is_hourly and spec.is_daily and shift is not None:
        return Mirror(calendar=_shifted(spec, shift))
    instants = sorted(
        {fire for change in changes for fire in fires_between(spec, zone, *_time_around(zone, change))}
    )
    return Mirror(
        calendar=spec,
        zone_name=zone.key,
        instants=tuple(instants),
        fresh_until=now + HORIZON / 2 if changes else None,
    )


def _time_around(zone: ZoneInfo, change: datetime) -> tuple[datetime, datetime]:
    """Give the time in which Temporal's calendars go wrong by a change of the clock.

    Where a clock leaps over midnight (America/Santiago), they leave out that whole day.
    """
    local, before = change.astimezone(zone), (change - timedelta(seconds=1)).astimezone(zone)
    leaps_midnight = local.date() != before.date() and local.time() != time()
    return change - _AROUND, change + (_DAY if leaps_midnight else _AROUND)


def clock_changes(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """Give the instants between `start` and `end` at which the zone's offset from UTC changes."""
    instant, step = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0), timedelta(days=1)
    while instant < end:
        if _offset(zone, instant) != _offset(zone, instant + step):
            yield _change_within(zone, instant, instant + step)
        instant += step


def _change_within(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    before = _offset(zone, low)
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
    return high


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None  # a ZoneInfo always knows
    return offset


def _common_shift(zone: ZoneInfo, instants: list[datetime]) -> int | None:
    """Give the minutes beyond whole hours of the zone's offsets, if they are always the same."""
    shifts = {_offset(zone, instant) % _HOUR for instant in instants}
    shift = shifts.pop() // timedelta(minutes=1)
    return None if shifts else shift


def _shifted(cron: Cron, shift: int) -> Cron:
    minutes = [(minute - shift) % 60 for minute in cron.minutes]
    return Cron.of_values(minutes, cron.hours, cron.days, cron.months, cron.weekdays)

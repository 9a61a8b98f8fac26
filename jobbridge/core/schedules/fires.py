"""The instants at which a schedule fires.

Cron is wall-clock time of the schedule's zone. Twice a year a clock is changed:

- A wall-clock time that the clock leaps over does not fire.
- A wall-clock time that comes twice fires the first time; but cron whose hour is `*` counts hours as they pass, and
  fires both times: a quarter-hourly schedule fires each quarter of an hour, come what may.

Temporal leaps over times likewise, but what it does with those that come twice depends on the zone (docs/decisions/
0009): `mirroring` says how the same fires are had there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import takewhile
from typing import assert_never
from zoneinfo import ZoneInfo

from jobbridge.core.schedules.cron import Cron
from jobbridge.core.schedules.intervals import Every
from jobbridge.core.schedules.specs import Once, ScheduleSpec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_INSTANT = timedelta(microseconds=1)

#: Nothing fires after it, as in Temporal.
LAST_YEAR = 2099


def fires(spec: ScheduleSpec, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Give the instants after `after`, ascending, as aware UTC.

    Args:
        spec: What the schedule says.
        zone: Whose wall clock cron means; the others do not ask for it.
        after: Aware; not included.
    """
    after = after.astimezone(UTC)
    match spec:
        case Cron():
            return _cron_fires(spec, zone, after)
        case Every():
            return _interval_fires(spec, after)
        case Once():
            return iter([spec.at] if spec.at > after else [])
        case _:
            assert_never(spec)


def next_fire(spec: ScheduleSpec, zone: ZoneInfo, after: datetime) -> datetime | None:
    """Give the first instant after `after`; None: it fires no more."""
    return next(fires(spec, zone, after), None)


def fires_between(spec: ScheduleSpec, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """Give the instants from `start` to `end`, both included."""
    return takewhile(lambda instant: instant <= end, fires(spec, zone, start - _INSTANT))


def is_fire(spec: ScheduleSpec, zone: ZoneInfo, instant: datetime) -> bool:
    """Tell whether the schedule fires at exactly that instant."""
    return next_fire(spec, zone, instant - _INSTANT) == instant


def _interval_fires(every: Every, after: datetime) -> Iterator[datetime]:
    number = (after - _EPOCH - every.phase) // every.interval + 1
    instant = _EPOCH + every.phase + number * every.interval
    while instant.year <= LAST_YEAR:
        yield instant
        instant += every.interval


def _cron_fires(cron: Cron, zone: tzinfo, after: datetime) -> Iterator[datetime]:
    #: Fires around a change of the clock. Days may interleave there (a clock that goes back over midnight), so they
    #: are put in order when the days around it are over.
    around_change: list[datetime] = []
    for day in _dates(cron, after.astimezone(zone).date() - _DAY):
        offset = _steady_offset(day, zone)
        if offset is None:
            around_change += _irregular_day(cron, zone, day)
            continue
        yield from _after(after, sorted(around_change))
        around_change = []
        yield from _regular_day(cron, day, offset, after)
    yield from _after(after, sorted(around_change))


def _dates(cron: Cron, first: date) -> Iterator[date]:
    day = first
    while day.year <= LAST_YEAR:
        if day.month not in cron.months:
            day = (day.replace(day=1) + timedelta(days=31)).replace(day=1)
            continue
        if cron.matches_date(day):
            yield day
        day += _DAY


def _steady_offset(day: date, zone: tzinfo) -> timedelta | None:
    """Give the offset from UTC, if it is the same from the day before to the day after."""
    offsets = {
        datetime.combine(near, time(), zone).utcoffset()
        for near in (day - _DAY, day, day + _DAY, day + 2 * _DAY)
    }
    return offsets.pop() if len(offsets) == 1 else None


def _regular_day(cron: Cron, day: date, offset: timedelta, after: datetime) -> Iterator[datetime]:
    midnight = datetime.combine(day, time(), UTC) - offset
    passed = (after - midnight) // timedelta(hours=1)
    for hour in cron.hours[bisect_left(cron.hours, passed) :]:
        for minute in cron.minutes:
            instant = midnight + timedelta(hours=hour, minutes=minute)
            if instant > after:
                yield instant


def _irregular_day(cron: Cron, zone: tzinfo, day: date) -> Iterator[datetime]:
    for hour in cron.hours:
        for minute in cron.minutes:
            wall = datetime.combine(day, time(hour, minute))
            yield from _instants(wall, zone, both=cron.is_hourly)


def _instants(wall: datetime, zone: tzinfo, *, both: bool) -> set[datetime]:
    """Give the instants at which a clock of the zone shows that time: none, one, or (`both`) two."""
    found = set()
    for fold in (0, 1) if both else (0,):
        instant = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None, fold=0) == wall:
            found.add(instant)
    return found


def _after(after: datetime, instants: list[datetime]) -> Iterator[datetime]:
    return (instant for instant in instants if instant > after)

"""How much of a bucket the time worked has used. Pure.

- A person works one minute at a time: where two entries of one technician overlap, the later one counts from where
  the earlier one ends. Two technicians at once are two minutes a minute.
- A minute outside business hours counts as many times as the bucket's multiplier says. The hours are those of the
  tenant's clocks, so a day on which they are put forward or back has them too.
- What an entry counts is rounded up to whole minutes and then to the bucket's step, entry by entry, as hourly time is.
  An entry that lies within others counts nothing.

So without overlaps and with a multiplier of 1 it is what an hourly line would charge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from jobbridge.handlers.invoicing.models import TimeEntry
from jobbridge.handlers.money import round_up
from jobbridge.handlers.providers import BusinessHours

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Time in one piece, from `start` up to and without `end`; both in UTC."""

    start: datetime
    end: datetime

    @property
    def minutes(self) -> Fraction:
        return Fraction(
            (self.end - self.start) // timedelta(microseconds=1), MINUTE // timedelta(microseconds=1)
        )


def counted_minutes(
    entries: Sequence[TimeEntry], *, hours: BusinessHours, multiplier: Decimal, round_to: int
) -> int:
    """Give the minutes that the entries take out of a bucket, in whatever order they come."""
    return sum(
        round_up(math.ceil(weighted_minutes(stretch, hours, multiplier)), round_to)
        for stretch in own_stretches(entries)
    )


def own_stretches(entries: Iterable[TimeEntry]) -> Iterator[Stretch]:
    """Give of each entry what no earlier entry of the same technician has; nothing of those that have none."""
    worked_until: dict[str, datetime] = {}
    for entry in sorted(entries, key=lambda entry: (entry.started_at, entry.entry_id)):
        start = entry.started_at.astimezone(UTC)
        end = start + entry.minutes * MINUTE
        # Those before started no later: what they have beyond this start is in one piece.
        until = worked_until.get(entry.technician, start)
        if end > until:
            yield Stretch(start=max(start, until), end=end)
        worked_until[entry.technician] = max(end, until)


def weighted_minutes(stretch: Stretch, hours: BusinessHours, multiplier: Decimal) -> Fraction:
    """Give a stretch's minutes, those outside business hours multiplied."""
    if multiplier == 1:
        return stretch.minutes
    usual = sum((piece.minutes for piece in within_hours(stretch, hours)), Fraction(0))
    return usual + (stretch.minutes - usual) * Fraction(multiplier)


def within_hours(stretch: Stretch, hours: BusinessHours) -> Iterator[Stretch]:
    """Give the pieces of a stretch that are within business hours."""
    day = stretch.start.astimezone(hours.zone).date()
    last = stretch.end.astimezone(hours.zone).date()
    while day <= last:
        if day.isoweekday() in hours.days:
            opens = datetime.combine(day, hours.opens_at, hours.zone).astimezone(UTC)
            closes = datetime.combine(day, hours.closes_at, hours.zone).astimezone(UTC)
            start, end = max(stretch.start, opens), min(stretch.end, closes)
            if start < end:
                yield Stretch(start=start, end=end)
        day += DAY

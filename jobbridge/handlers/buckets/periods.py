"""Which period of a bucket is running, and what the one before leaves to it. Pure."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from jobbridge.handlers.invoicing.models import Period

DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketPeriod:
    """A period of a bucket that has a row."""

    period_start: date
    period_end: date
    included_minutes: int
    rolled_over_minutes: int
    used_minutes: int

    @property
    def period(self) -> Period:
        return Period(start=self.period_start, end=self.period_end)


def running_period(today: date, known: Sequence[BucketPeriod]) -> Period:
    """Give the period that today is in.

    It is the one that has a row (if there are two, the one that started last), else the calendar month, as far as
    no other row has a part of it.
    """
    running = [each.period for each in known if today in each.period]
    if running:
        return max(running)
    ends = [each.period_end + DAY for each in known if each.period_end < today]
    starts = [each.period_start - DAY for each in known if each.period_start > today]
    days_in_month = calendar.monthrange(today.year, today.month)[1]
    return Period(
        start=max([today.replace(day=1), *ends]), end=min([today.replace(day=days_in_month), *starts])
    )


def carried_over(period: Period, known: Sequence[BucketPeriod]) -> int:
    """Give the minutes that the period before leaves to this one.

    What was carried over once is used first, and lapses at the end: a bucket never carries more than one period's
    minutes. Nothing is carried over a gap.
    """
    before = [each for each in known if each.period_end == period.start - DAY]
    if not before:
        return 0
    last = max(before, key=lambda each: each.period_start)
    left = last.included_minutes + last.rolled_over_minutes - last.used_minutes
    return max(0, min(left, last.included_minutes))

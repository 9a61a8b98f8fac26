"""Which stretch of time a partition of the job tables holds, and how an id says its time.

The ids of jobs are UUIDs of version 7: their first 48 bits are the milliseconds since 1970. So a range of ids is a
range of time, and an id alone leads to its partition. Source: RFC 9562, section 5.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)


class Width(StrEnum):
    """How much time a partition holds; each begins at midnight UTC, a week on Monday."""

    MONTH = "month"
    WEEK = "week"
    DAY = "day"


#: So many partitions are made before their time.
AHEAD = {Width.MONTH: 3, Width.WEEK: 5, Width.DAY: 14}


def start_of(width: Width, at: datetime) -> datetime:
    """Give the beginning of the partition that holds an instant."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match width:
        case Width.MONTH:
            return day.replace(day=1)
        case Width.WEEK:
            return day - day.weekday() * _DAY
        case Width.DAY:
            return day


def end_of(width: Width, at: datetime) -> datetime:
    """Give the beginning of the partition after that which holds an instant."""
    start = start_of(width, at)
    match width:
        case Width.MONTH:
            return start_of(width, start + 32 * _DAY)
        case Width.WEEK:
            return start + 7 * _DAY
        case Width.DAY:
            return start + _DAY


def stretches(width: Width, *, first: datetime, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Give beginning and end of each partition from that of `first` to the last that is made before its time.

    `first` may lie within such a stretch (the width was changed): then that one begins there.
    """
    last = now
    for _ in range(AHEAD[width]):
        last = end_of(width, last)
    while first <= last:
        end = end_of(width, first)
        yield first, end
        first = end


def lowest_id(at: datetime) -> UUID:
    """Give the id below those of all jobs from that instant on; to the millisecond."""
    return UUID(int=((at - _EPOCH) // _MILLISECOND) << 80)


def instant_of(job_id: UUID) -> datetime:
    """Give the instant that an id names, if it is one of version 7."""
    return _EPOCH + (job_id.int >> 80) * _MILLISECOND


def time_ordered_id(milliseconds: int, chance: int) -> UUID:
    """Make an id of version 7.

    Args:
        milliseconds: Since 1970.
        chance: 80 bits of it.
    """
    high = chance >> 68 & 0xFFF
    return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | chance & (1 << 62) - 1)

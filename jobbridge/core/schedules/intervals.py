"""Intervals: "24 hours", "15 minutes", counted from the epoch and not from when they were declared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from jobbridge.core.schedules.cron import HINT
from jobbridge.errors import UnsupportedOption

_UNITS = {
    "week": timedelta(weeks=1),
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}
_PART = re.compile(r"(\d{1,10})\s*(week|day|hour|minute|second)s?\b", re.IGNORECASE)
_WHOLE = re.compile(rf"^\s*({_PART.pattern}[\s,]*)+$", re.IGNORECASE)
_SECOND = timedelta(seconds=1)

#: The longest that makes sense, and that Temporal takes.
LONGEST = timedelta(days=3660)


@dataclass(frozen=True, kw_only=True, slots=True)
class Every:
    """An interval: fires at `phase + n * interval` after 1970-01-01T00:00:00Z, as Temporal counts.

    So "24 hours" is midnight UTC, wherever and whenever it was declared, and a restart does not move it.

    Attributes:
        interval: Whole seconds, from one second to ten years.
        phase: Whole seconds, shorter than the interval.

    Raises:
        UnsupportedOption: A duration does not fit.
    """

    interval: timedelta
    phase: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if self.interval % _SECOND or self.phase % _SECOND:
            raise _refused(self.interval, "it is no whole number of seconds")
        if not _SECOND <= self.interval <= LONGEST:
            raise _refused(self.interval, "it is not between a second and ten years")
        if not timedelta(0) <= self.phase < self.interval:
            raise _refused(self.interval, f"the offset {self.phase} is not shorter than it")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "24 hours", "1 hour 30 minutes", or "1 day offset 2 hours".

        Raises:
            UnsupportedOption: It is no interval, or does not fit.
        """
        interval, offset, phase = text.partition("offset")
        return cls(interval=duration_of(interval), phase=duration_of(phase) if offset else timedelta(0))

    @property
    def text(self) -> str:
        """What `parse` reads."""
        return _written(self.interval) + (f" offset {_written(self.phase)}" if self.phase else "")

    def __str__(self) -> str:
        return self.text


def looks_like_interval(text: str) -> bool:
    """Whether the text begins as an interval does, rather than as cron."""
    return _PART.match(text.strip()) is not None


def duration_of(text: str) -> timedelta:
    """Read "2 days", or "1 hour 30 minutes".

    Raises:
        UnsupportedOption: It is no duration.
    """
    if not _WHOLE.match(text):
        raise _refused(text.strip(), "it is no duration")
    total = timedelta(0)
    try:
        for amount, unit in _PART.findall(text):
            total += int(amount) * _UNITS[unit.lower()]
    except OverflowError:
        raise _refused(text.strip(), "it is not between a second and ten years") from None
    return total


def _written(duration: timedelta) -> str:
    parts, rest = [], duration
    for unit, length in list(_UNITS.items())[1:]:
        amount, rest = divmod(rest, length)
        if amount:
            parts.append(f"{amount} {unit}{'s' if amount > 1 else ''}")
    return " ".join(parts)


def _refused(interval: object, reason: str) -> UnsupportedOption:
    return UnsupportedOption(f"The interval {str(interval)!r} cannot be honoured: {reason}.", hint=HINT)

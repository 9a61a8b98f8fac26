"""What looking at a system gives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1)))


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, in a word.
        is_good: False: somebody has to do something.
        found: What there is.
        hint: What to do, in the imperative.
    """

    name: str
    is_good: bool
    found: str
    hint: str = ""


def good(name: str, found: str) -> Check:
    """Tell that nobody has to do anything."""
    return Check(name=name, is_good=True, found=found)


def bad(name: str, found: str, hint: str = "") -> Check:
    """Tell that somebody has to do something."""
    return Check(name=name, is_good=False, found=found, hint=hint)


def duration(length: timedelta) -> str:
    """Say a length of time in the largest fitting unit."""
    for unit, size in _UNITS:
        if length >= size:
            return f"{length // size} {unit}"
    return f"{max(0, int(length.total_seconds()))} s"


def age(at: datetime) -> str:
    """Say how long ago that was."""
    return duration(datetime.now(UTC) - at)


def some(names: list[str], *, limit: int = 5) -> str:
    """Name the first few."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

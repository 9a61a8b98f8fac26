"""Lengths of time as rules are given them."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from jobbridge.errors import UnsupportedOption

#: Postgres' instants and Python's have an end; a rule has no use for more.
LONGEST = timedelta(days=3660)


def duration_of(option: str, value: object) -> timedelta | None:
    """Read seconds, or a timedelta; None: none.

    Args:
        option: As the error names it.

    Raises:
        UnsupportedOption: It is neither, not above zero, or longer than ten years.
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError, ValueError):  # too long, or NaN
            value = timedelta(seconds=value)
    if not isinstance(value, timedelta) or not timedelta() < value <= LONGEST:
        raise UnsupportedOption(
            f"{option} is {str(value)[:60]!r}.", hint="Pass seconds, or a timedelta, of ten years at most."
        )
    return value

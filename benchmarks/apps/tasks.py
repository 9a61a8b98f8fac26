"""The jobs' functions, the same for every system in Python."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.ledger import note as note

__all__ = ["echo", "note", "total"]


def echo(number: int, seconds: float = 0.0) -> int:
    """Give the number back, after some time."""
    if seconds:
        time.sleep(seconds)
    return number


def total(numbers: Sequence[int]) -> int:
    """Sum the results of a chord's header."""
    return sum(numbers)

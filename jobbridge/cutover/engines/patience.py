"""Temporal that is slow to answer, since thousands of workflows begin or end at the same time, is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from jobbridge.errors import EngineUnavailable

_Value = TypeVar("_Value")

#: For so long; what is asked may be asked twice.
PATIENCE = timedelta(seconds=90)
_LONGEST_PAUSE = 5.0


def patiently(ask: Callable[[], _Value]) -> _Value:
    """Ask until there is an answer.

    Raises:
        EngineUnavailable: There has been none for `PATIENCE`.
    """
    deadline, pause = time.monotonic() + PATIENCE.total_seconds(), 0.5
    while True:
        try:
            return ask()
        except EngineUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)

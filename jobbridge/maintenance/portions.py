"""Work that is done a portion at a time, so that a service gives way to the others and stops soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def in_portions(work: Callable[[], int], most: int, stopped: threading.Event, until: float) -> int:
    """Work until a portion is less than it might be; gives how much was done.

    Args:
        work: Does one portion, and gives its size.
        most: Its size when more is left.
        stopped: Do not begin another one.
        until: Nor after that instant of the monotonic clock.
    """
    done = 0
    while not stopped.is_set() and time.monotonic() < until:
        portion = work()
        done += portion
        if portion < most:
            break
    return done

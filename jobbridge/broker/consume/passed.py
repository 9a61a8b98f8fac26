"""Where in a queue there is nothing any more, for claims while vacuum is held back (decision 0024).

A claim reads the first entries of `messages_ready`. As long as somebody's old snapshot may see them, the entries of
messages that have gone stay there, and each claim passes over all of them: 2 ms for 50 messages became 200 after
250,000. So a consumer whose claims get slow remembers, for each priority, up to which number it found nothing, and
asks only for what comes after.

What is behind that and becomes ready after all (a lease that was given back, what was due, the message of a long
transaction) is found when it looks at everything again: at the pace of `SHARE`, so that these looks, however slow,
take little of its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

#: A claim that Postgres takes so long for is slow. Seconds.
SLOW = 0.02
#: What was found holds from so much later on: a message with a lower number may be on its way. Seconds.
SETTLES = 1.0
#: So many slow ones in a row: one alone may have waited for somebody's lock, or for a busy machine.
TIMES = 5
#: Of the time, what looks at everything may take; it is done again after LONGEST seconds at the latest.
SHARE = 0.05
LONGEST = 10.0
#: As they are sent; what has another is found by the looks at everything.
PRIORITIES = tuple(range(9, -1, -1))


class Passed:
    """What one consumer knows of one queue."""

    def __init__(self) -> None:
        self._holds: dict[int, int] = {}
        self._found: dict[int, int] = {}
        self._found_since = 0.0
        #: When to look at everything again; None: claims are fast, and nothing is remembered.
        self.all_again_at: float | None = None
        self._newest = 0
        self._slow_ones = 0

    def floors(self) -> list[int] | None:
        """Give the lowest numbers to look for, in the order of PRIORITIES; None: look at everything."""
        now = monotonic()
        if self.all_again_at is None or now >= self.all_again_at:
            return None
        if now - self._found_since >= SETTLES:
            self._holds |= self._found
            self._found, self._found_since = {}, now
        return [self._holds.get(priority, 0) for priority in PRIORITIES]

    def note(self, found: Sequence[tuple[int, int]], limit: int, seconds: float, *, was_all: bool) -> None:
        """Take into account what a claim found.

        Args:
            found: The priority and the number of each message.
            limit: So many were wanted.
            seconds: How long Postgres took.
            was_all: It looked at everything.
        """
        self._newest = max([self._newest, *(number for _, number in found)])
        lowest: dict[int, int] = {}
        for priority, number in found:
            lowest[priority] = min(number, lowest.get(priority, number))
        if was_all:
            is_behind = any(lowest[each] < self._holds.get(each, 0) for each in lowest)
            self._all_took(seconds)
            if is_behind and len(found) >= limit and self.all_again_at is not None:
                # There may be more than was wanted, also of priorities that this look did not come to.
                self.all_again_at = 0.0
        # It came to the end of all, or of those above the last that gave something.
        last = -1 if len(found) < limit else min(lowest)
        for priority in PRIORITIES:
            if priority in lowest or priority > last:
                self._found.setdefault(priority, lowest.get(priority, self._newest))

    def _all_took(self, seconds: float) -> None:
        self._slow_ones = 0 if seconds < SLOW else self._slow_ones + 1
        if self._slow_ones >= TIMES:
            self.all_again_at = monotonic() + min(seconds / SHARE, LONGEST)
        else:
            self.all_again_at = None
            self._holds, self._found, self._found_since = {}, {}, monotonic()

"""What was seen twice, some time apart, and did not change between: only that is acted upon."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from datetime import timedelta
from typing import Generic, TypeVar

Seen = TypeVar("Seen", bound=Hashable)

#: A worker that lost its session is back within seconds; what is amid two steps has taken the second.
APART = timedelta(seconds=15)


class Sightings(Generic[Seen]):
    """Remembers since when each was seen.

    Args:
        apart: From the first look to the one that counts.
        clock: In seconds.
    """

    def __init__(self, *, apart: timedelta = APART, clock: Callable[[], float] = time.monotonic) -> None:
        self._apart = apart.total_seconds()
        self._clock = clock
        self._since: dict[Seen, float] = {}

    def confirm(self, seen: Iterable[Seen]) -> list[Seen]:
        """Look once more: give those which were seen in each look since `apart` ago. Who is not seen is forgotten."""
        now = self._clock()
        self._since = {each: self._since.get(each, now) for each in seen}
        return [each for each, since in self._since.items() if now - since >= self._apart]

    def __len__(self) -> int:
        return len(self._since)

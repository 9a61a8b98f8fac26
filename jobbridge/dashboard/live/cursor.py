"""What a client says it has seen when it comes back: a time of this reader, which tells nothing of other tenants.

The log's own ids would: how many jobs all others have.
"""

from __future__ import annotations

import re
import secrets
from bisect import bisect_right

_WRITTEN = re.compile(r"([0-9a-f]{12})-([0-9]{1,15})", re.ASCII)


class Cursors:
    """How far the log was read at which time.

    Args:
        kept: Seconds that a cursor is good.
    """

    def __init__(self, *, kept: float) -> None:
        self._kept = round(kept * 1000)
        self._name = secrets.token_hex(6)
        self._times: list[int] = []
        self._ids: list[int] = []

    def note(self, event_id: int, *, now: float) -> str:
        """Remember that all changes up to that one are told now; gives it in words.

        Args:
            event_id: Of the log; never less than before.
            now: Seconds.
        """
        at = round(now * 1000)
        if not self._ids or event_id > self._ids[-1]:
            self._times.append(at)
            self._ids.append(event_id)
        past = bisect_right(self._times, at - self._kept) - 1  # the one that was true then stays
        if past > 0:
            del self._times[:past], self._ids[:past]
        return f"{self._name}-{at}"

    def find(self, words: str) -> int | None:
        """Give up to which change all were told at that cursor; None: it is none of these, or too long ago."""
        found = _WRITTEN.fullmatch(words)
        if found is None or found[1] != self._name:
            return None
        past = bisect_right(self._times, int(found[2])) - 1
        return None if past < 0 else self._ids[past]

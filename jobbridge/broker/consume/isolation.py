"""Suspects: messages that run alone before they are condemned (decision 0023).

What takes its worker with it makes suspects of all that ran beside it. So a message that has one delivery left is
taken by a consumer that has nothing else, and that takes nothing beside it: whoever dies then knows whose fault it
was. Only then is it a dead letter (`sweeping.FREE_LEASES`).

A consumer that has nothing takes a suspect at once. One that is busy lets others take it for a while; then it takes
nothing new until it has nothing, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from jobbridge.broker.session import Session

if TYPE_CHECKING:
    from jobbridge.broker.transport import Transport

#: A busy consumer leaves a suspect to others for so long, and then for some more, by its number: they are not to
#: empty themselves all at once. Seconds.
PATIENCE: Final = 5.0
SPREAD: Final = 10

# In delivery order, so that a backlog costs nothing: what stands behind more than these comes nearer.
FIND_SUSPECTS: Final = """
SELECT served.queue, message.id
FROM unnest(%(queues)s::text[]) AS served (queue)
CROSS JOIN LATERAL (
    SELECT id, deliveries
    FROM jobbridge_broker.messages
    WHERE queue = served.queue AND leased_by IS NULL AND due_at IS NULL
    ORDER BY priority DESC, id
    LIMIT 100
) AS message
WHERE message.deliveries >= %(suspect_from)s
"""


class Isolation:
    """Which suspects wait for one consumer, and whether it has to be alone.

    Args:
        suspect_from: Deliveries that make a suspect of a message.
    """

    def __init__(self, suspect_from: int) -> None:
        self._suspect_from = suspect_from
        self._waiting: dict[str, list[int]] = {}
        self._since: float | None = None

    def hear(self, session: Session, queues: Sequence[str], look_at: Callable[[str], None]) -> None:
        """Look, if the session was told that a suspect has come back."""
        if session.is_suspect_notified:
            session.is_suspect_notified = False
            self.look(session, queues, look_at)

    def look_again(self, session: Session, queues: Sequence[str], look_at: Callable[[str], None]) -> None:
        """Look, if a suspect was known to wait."""
        if self._since is not None:
            self.look(session, queues, look_at)

    def look(self, session: Session, queues: Sequence[str], look_at: Callable[[str], None]) -> None:
        """See which suspects wait; `look_at` is told in which queues."""
        found: dict[str, list[int]] = {}
        for row in session.rows(FIND_SUSPECTS, {"queues": list(queues), "suspect_from": self._suspect_from}):
            found.setdefault(row["queue"], []).append(row["id"])
            look_at(row["queue"])
        self._waiting = found
        self._since = None if not found else monotonic() if self._since is None else self._since

    def suspects(self, queue: str, transport: Transport) -> list[int] | None:
        """Give the suspects of a queue of which one is to be taken now, if any; None: nothing may be taken.

        Args:
            queue: Which is looked at.
            transport: Who takes.
        """
        leases = [lease for channel in transport.open_channels for lease in channel.window.live_leases()]
        if any(lease.deliveries > self._suspect_from for lease in leases):
            return None  # one runs here
        if not leases:
            waiting = self._waiting.get(queue)
            return [waiting.pop(0)] if waiting else []
        if any(self._waiting.values()) and self._since is not None:
            patience = PATIENCE + (transport.session.consumer or 0) % SPREAD
            return None if monotonic() - self._since > patience else []
        return []

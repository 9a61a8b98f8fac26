"""What was delivered on a channel and is not settled; and how that outlives the session that delivered it.

When a session is lost, Celery drops the tasks that it had not started, and lets those that run go on. Python tells the
two apart: a message that is still being worked on is still referred to. So the next consumer session of the process
goes on with the leases of exactly these, before anybody frees them, and a task that runs for hours is not run a
second time because Postgres was restarted meanwhile. Leases under a process's number change hands in memory only; all
others of that number are given back then.
"""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kombu.log import get_logger
from kombu.transport import virtual

from jobbridge.broker import UNCOUNTED
from jobbridge.broker.consume.settling import IS_STILL, LateAcknowledgements, Lease, Settlement, Settler
from jobbridge.broker.routing import CHANNEL_OF_QUEUE
from jobbridge.broker.session import Session

if TYPE_CHECKING:
    from jobbridge.broker.channel import Channel

logger = get_logger(__name__)

ADOPT = f"""
UPDATE jobbridge_broker.messages AS message
SET leased_by = %(consumer)s, deliveries = known.deliveries
FROM unnest(%(ids)s::bigint[], %(deliveries)s::smallint[], %(consumers)s::bigint[])
    AS known (id, deliveries, consumer)
WHERE message.id = known.id AND {IS_STILL}
RETURNING message.id
"""  # noqa: S608  # put together from the constants above


# Under a process's number.
GIVE_BACK_OTHERS = f"""
WITH freed AS (
    UPDATE jobbridge_broker.messages
    SET leased_by = NULL, redelivered = true, deliveries = greatest(deliveries - 1, 0)
    WHERE leased_by = %(consumer)s AND id <> ALL(%(had)s::bigint[])
    RETURNING queue
)
SELECT pg_notify({CHANNEL_OF_QUEUE}, '')
FROM (SELECT DISTINCT queue FROM freed) AS queues
"""  # noqa: S608  # put together from the constants above


class Window(virtual.QoS):
    """What was delivered on a channel and is not settled, against its prefetch count."""

    channel: Channel

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        # Not the base's: it restores messages at exit, by publishing them again.
        self.channel = channel
        self.prefetch_count = prefetch_count or 0
        self.leases: dict[str, tuple[Lease, Settler]] = {}
        self._messages: dict[str, weakref.ref[Any]] = {}
        # Reentrant: the garbage collector may call `_dropped` anywhere.
        self._lock = threading.RLock()
        self.orphans = channel.connection.orphans
        self.orphans.know(self)

    def can_consume(self) -> bool:
        return not self.prefetch_count or len(self.leases) < self.prefetch_count

    def room(self) -> int | None:
        """Tell how many more may be delivered; None is no limit."""
        if not self.prefetch_count:
            return None
        beyond = self.channel.connection.options.beyond_prefetch
        room = self.prefetch_count + (beyond() if beyond is not None else 0) - len(self.leases)
        # `can_consume` is asked, too: Celery replaces it (`worker_disable_prefetch`).
        is_closed = len(self.leases) < self.prefetch_count and not self.can_consume()
        return 0 if is_closed else max(room, 0)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Know the message that is being delivered. It is counted in already: since its claim."""
        self._messages[delivery_tag] = weakref.ref(message)

    def hold(self, lease: Lease, settler: Settler) -> str:
        """Count the message in, and give its delivery tag."""
        tag = f"{lease.message_id}.{lease.deliveries}"
        with self._lock:
            self.leases[tag] = lease, settler
        return tag

    def release(self, tag: str) -> tuple[Lease, Settler] | None:
        """Count the message out; None when it was not, or not any more."""
        with self._lock:
            self._messages.pop(tag, None)
            return self.leases.pop(tag, None)

    def live(self) -> dict[str, tuple[Lease, Settler]]:
        """Give what can be given back. What a lost session delivered may still be acknowledged, late."""
        with self._lock:
            # Of few sessions, and asked for with each claim.
            alive = {
                settler: settler.session.is_alive for settler in {held[1] for held in self.leases.values()}
            }
            return {tag: held for tag, held in self.leases.items() if alive[held[1]]}

    def live_leases(self) -> list[Lease]:
        """Give the leases that were delivered by a session that lives."""
        return [lease for lease, _ in self.live().values()]

    def orphaned(self) -> dict[str, Lease]:
        """Give the leases of lost sessions whose messages somebody still works on."""
        with self._lock:
            return {
                tag: lease
                for tag, (lease, settler) in self.leases.items()
                if not settler.session.is_alive and (known := self._messages.get(tag)) is not None and known()
            }

    def adopted(self, tag: str, lease: Lease, settler: Settler) -> None:
        """Go on with this lease instead. It ends when the message is settled, or when nobody has it any more."""
        message = self._messages[tag]()
        with self._lock:
            if tag in self.leases:
                self.leases[tag] = lease, settler
        weakref.finalize(message, self._dropped, tag).atexit = False

    def _dropped(self, tag: str) -> None:
        held = self.release(tag)
        if held is not None:
            held[1].settle(Settlement.RETURNED, held[0])

    def ack(self, delivery_tag: str) -> None:
        self.channel.settle(delivery_tag, Settlement.ACKNOWLEDGED)

    def reject(self, delivery_tag: str, requeue: bool | str = False) -> None:
        settlement = Settlement.RETURNED if requeue == UNCOUNTED else Settlement.REQUEUED
        self.channel.settle(delivery_tag, settlement if requeue else Settlement.REJECTED)

    def restore_unacked(self) -> None:
        self.channel.give_back()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        self.channel.give_back()


class Orphans:
    """What this process has of one database's messages; and leases of lost sessions, which the next one goes on with.

    Attributes:
        lock: Held while messages come or go, so that what the process has can be counted.
        settlers: All that may have something to write.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.settlers: weakref.WeakSet[Settler] = weakref.WeakSet()
        self._windows: weakref.WeakSet[Window] = weakref.WeakSet()
        self._lost: list[Window] = []

    def know(self, window: Window) -> None:
        """Count what is delivered there."""
        with self.lock:
            self._windows.add(window)

    def add(self, window: Window) -> None:
        """Remember the closed channel's deliveries, if any is left."""
        if window.leases:
            with self.lock:
                self._lost.append(window)

    def adopt(self, session: Session, settler: Settler, late: LateAcknowledgements) -> None:
        """Let this session's consumer hold what is still worked on, and nothing else of its number.

        Raises:
            SessionLost: This session is gone, too. The next one will.
        """
        with self.lock:
            for each in list(self.settlers):
                if not each.session.is_alive:
                    each.end()  # nobody comes again who would write it: it would count as had, for ever
            late.flush(session)
            self._lost = [window for window in self._lost if window.leases]
            if self._lost:
                gc.collect()  # what refers to nothing but itself is not being worked on
            orphaned = [
                (window, tag, lease) for window in self._lost for tag, lease in window.orphaned().items()
            ]
            if orphaned:
                self._go_on(session, settler, orphaned)
            if session.is_of_process and not session.has_counted:
                self._give_back_others(session, late)

    def _go_on(self, session: Session, settler: Settler, orphaned: list[tuple[Window, str, Lease]]) -> None:
        consumer = session.become_consumer()
        rows = session.rows(
            ADOPT,
            {
                "consumer": consumer,
                "ids": [lease.message_id for _, _, lease in orphaned],
                "deliveries": [lease.deliveries for _, _, lease in orphaned],
                "consumers": [lease.consumer for _, _, lease in orphaned],
            },
        )
        taken = {row["id"] for row in rows}
        for window, tag, lease in orphaned:
            if lease.message_id in taken:
                window.adopted(tag, replace(lease, consumer=consumer), settler)
        logger.warning(
            "broker.kept: %d of %d messages that were being worked on when the session was lost",
            len(taken),
            len(orphaned),
        )

    def _give_back_others(self, session: Session, late: LateAcknowledgements) -> None:
        """Free what a lost session claimed, and nobody here has: the number lives on, so no sweeper would."""
        had = late.waiting()
        for settler in self.settlers:
            had |= settler.waiting()
        for window in self._windows:
            had |= {lease.message_id for lease in [*window.live_leases(), *window.orphaned().values()]}
        session.rows(GIVE_BACK_OTHERS, {"consumer": session.consumer, "had": sorted(had)})
        session.has_counted = True

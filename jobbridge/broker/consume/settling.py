"""Settling what was delivered: acknowledge, reject, give back.

Only the holder of a lease settles: every statement names the consumer, so a message that somebody else has by now
is left alone. The session that delivered may be gone when a task ends (Postgres was restarted, the network failed);
then the message is deleted if nobody took it meanwhile, by the next session of this process: see `late`.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from time import monotonic, sleep
from typing import Any, Final

import psycopg
from kombu.log import get_logger
from kombu.utils.json import loads

from jobbridge.broker.errors import NotNow, SessionLost
from jobbridge.broker.routing import CHANNEL_OF_QUEUE
from jobbridge.broker.session import Row, Session

logger = get_logger(__name__)

#: Seconds: so long a settlement is tried where no loop would try it again.
PATIENCE: Final = 10.0

DEAD_COLUMNS = (
    "id, queue, priority, expires_at, deliveries, correlation_id, published_at, content_type, content_encoding, "
    "headers, properties, body"
)

# Not `leased_by = …`: by the number alone is it to be looked for. When the table's statistics say that it is empty, an
# index of the leases seems as good, and it has all that this consumer ever held while vacuum is held back.
OURS = "coalesce(leased_by, 0) = %(consumer)s"

ACKNOWLEDGE = f"""
DELETE FROM jobbridge_broker.messages
WHERE id = ANY(%(ids)s) AND {OURS}
"""  # noqa: S608  # put together from the constants above

# `deliveries` grows with each lease: a message that somebody took since has another number. A crash of Postgres may
# have forgotten a lease of a moment before: then the message is as before it.
IS_STILL = """
    CASE
        WHEN message.leased_by = known.consumer THEN message.deliveries = known.deliveries
        WHEN message.leased_by IS NULL THEN message.deliveries IN (known.deliveries, known.deliveries - 1)
    END"""
ACKNOWLEDGE_LATE = f"""
DELETE FROM jobbridge_broker.messages AS message
USING unnest(%(ids)s::bigint[], %(deliveries)s::smallint[], %(consumers)s::bigint[])
    AS known (id, deliveries, consumer)
WHERE message.id = known.id AND {IS_STILL}
"""  # noqa: S608  # put together from the constants above

REJECT = f"""
WITH rejected AS (
    DELETE FROM jobbridge_broker.messages
    USING unnest(%(ids)s::bigint[], %(reasons)s::text[]) AS told (message_id, reason)
    WHERE id = told.message_id AND {OURS}
    RETURNING {DEAD_COLUMNS}, told.reason
), dead AS (
    INSERT INTO jobbridge_broker.dead_letters ({DEAD_COLUMNS}, reason)
    SELECT {DEAD_COLUMNS}, reason
    FROM rejected
)
SELECT reason, headers::text AS headers
FROM rejected
"""  # noqa: S608  # put together from the constants above

# Asked for by the task, so it counts: a message that only ever comes back ends as a dead letter.
REQUEUE = f"""
WITH exhausted AS (
    DELETE FROM jobbridge_broker.messages
    WHERE id = ANY(%(ids)s) AND {OURS} AND deliveries >= %(deliveries_allowed)s
    RETURNING {DEAD_COLUMNS}
), dead AS (
    INSERT INTO jobbridge_broker.dead_letters ({DEAD_COLUMNS}, reason)
    SELECT {DEAD_COLUMNS}, 'too_many_deliveries'
    FROM exhausted
), freed AS (
    UPDATE jobbridge_broker.messages
    SET leased_by = NULL, redelivered = true
    WHERE id = ANY(%(ids)s) AND {OURS} AND deliveries < %(deliveries_allowed)s
    RETURNING queue
)
SELECT 'too_many_deliveries' AS reason, headers::text AS headers, NULL::text AS notified
FROM exhausted
UNION ALL
SELECT NULL, NULL, pg_notify({CHANNEL_OF_QUEUE}, '')::text
FROM (SELECT DISTINCT queue FROM freed) AS queues
"""  # noqa: S608  # put together from the constants above

# Given back unfinished by a consumer that ends well: not counted, or five deployments would make a dead letter of it.
GIVE_BACK = f"""
WITH freed AS (
    UPDATE jobbridge_broker.messages
    SET leased_by = NULL, redelivered = true, deliveries = greatest(deliveries - 1, 0)
    WHERE id = ANY(%(ids)s) AND {OURS}
    RETURNING queue
)
SELECT pg_notify({CHANNEL_OF_QUEUE}, '')
FROM (SELECT DISTINCT queue FROM freed) AS queues
"""  # noqa: S608  # put together from the constants above


#: The reason of a dead letter that was rejected without one.
REJECTED = "rejected"
#: What the reason begins with where a message was none that its consumer could read.
UNREADABLE = "unreadable: "
_LONGEST_REASON = 500


def unreadable(why: object) -> str:
    """Give the reason of a dead letter that could not be read; one line, whatever is in the message."""
    text = " ".join(str(why).replace("\x00", "\\x00").split())
    return f"{UNREADABLE}{text}".encode(errors="replace").decode()[:_LONGEST_REASON]


class Settlement(Enum):
    """What becomes of a delivered message."""

    ACKNOWLEDGED = "acknowledged"
    REJECTED = "rejected"
    REQUEUED = "requeued"
    RETURNED = "returned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A delivered message that is not settled yet.

    Attributes:
        reason: Why it is a dead letter, if it becomes one by being rejected.
    """

    message_id: int
    deliveries: int
    consumer: int
    queue: str
    reason: str = REJECTED


class Settler:
    """Collects settlements of one session, and writes them together.

    `settle` may be called by any thread; `flush` by the one that consumes.

    Args:
        session: Which holds the leases.
        late: Where acknowledgements go when the session is gone.
        lock: Held while what becomes of messages is written: whoever counts what the process has waits for it.
        deliveries_allowed: After so many a requeued message becomes a dead letter.
        on_dead_letters: Called with rows of `reason` and `headers`.
    """

    def __init__(
        self,
        session: Session,
        late: LateAcknowledgements,
        *,
        lock: threading.RLock,
        deliveries_allowed: int,
        on_dead_letters: Callable[[Iterable[Row]], None],
    ) -> None:
        self.session = session
        self._late = late
        self._shared_lock = lock
        self._deliveries_allowed = deliveries_allowed
        self._on_dead_letters = on_dead_letters
        self._waiting: list[tuple[Settlement, Lease]] = []
        self._waiting_since = 0.0
        self._lock = threading.RLock()  # the garbage collector may call `settle` anywhere

    def settle(self, settlement: Settlement, lease: Lease) -> None:
        """Note what becomes of the message; `flush` writes it."""
        if not self.session.is_alive:
            self._settle_late(settlement, lease)
            return
        with self._lock:
            if not self._waiting:
                self._waiting_since = monotonic()
            self._waiting.append((settlement, lease))

    def flush(self) -> None:
        """Write what was noted. What cannot be written stays noted, in its order.

        Raises:
            SessionLost: The session ended. What was to be acknowledged will be, late.
            NotNow: Postgres could not; call again in a moment.
        """
        if not self._waiting:
            return
        with self._shared_lock:
            with self._lock:
                waiting, self._waiting = self._waiting, []
            by_settlement: dict[Settlement, list[Lease]] = defaultdict(list)
            for settlement, lease in waiting:
                by_settlement[settlement].append(lease)
            try:
                for settlement in list(by_settlement):
                    self._write(settlement, by_settlement[settlement])
                    del by_settlement[settlement]
            except SessionLost:
                for settlement, leases in by_settlement.items():
                    for lease in leases:
                        self._settle_late(settlement, lease)
                raise
            except (psycopg.Error, NotNow):
                with self._lock:
                    left = [(each, lease) for each, lease in waiting if each in by_settlement]
                    self._waiting = left + self._waiting
                raise

    @contextmanager
    def acknowledging(self) -> Iterator[list[int]]:
        """Give the messages that were acknowledged, for the block to write it; if it cannot, they stay noted.

        Raises:
            SessionLost: The session ended in the block. They will be acknowledged late.
        """
        with self._lock:
            waiting, self._waiting = self._waiting, []
            done = [lease for settlement, lease in waiting if settlement is Settlement.ACKNOWLEDGED]
            self._waiting = [each for each in waiting if each[0] is not Settlement.ACKNOWLEDGED]
        try:
            yield [lease.message_id for lease in done]
        except SessionLost:
            for lease in done:
                self._settle_late(Settlement.ACKNOWLEDGED, lease)
            raise
        except BaseException:
            with self._lock:
                self._waiting = [(Settlement.ACKNOWLEDGED, lease) for lease in done] + self._waiting
            raise

    def check(self, told: int, deleted: int) -> None:
        """Say so if messages were acknowledged that somebody else has by now."""
        if deleted < told:
            logger.warning(
                "broker.lease_was_lost: %d of %d acknowledged messages were no longer ours",
                told - deleted,
                told,
            )

    def may_wait(self, seconds: float) -> bool:
        """Whether what waits are acknowledgements alone, and none has waited so long."""
        with self._lock:
            return (
                all(settlement is Settlement.ACKNOWLEDGED for settlement, _ in self._waiting)
                and monotonic() - self._waiting_since < seconds
            )

    def waiting(self) -> set[int]:
        """Give the ids of the messages whose settlement is still to be written."""
        with self._lock:
            return {lease.message_id for _, lease in self._waiting}

    def flush_patiently(self, *, patience: float = PATIENCE) -> None:
        """Write what was noted, where nobody comes again in a moment: wait while Postgres cannot.

        Args:
            patience: For how long, in seconds.

        Raises:
            SessionLost: The session ended. What was to be acknowledged will be, late.
            NotNow: Postgres could not for long. It stays noted.
        """
        deadline = monotonic() + patience
        nap = 0.05
        while True:
            try:
                return self.flush()
            except NotNow:
                if monotonic() > deadline:
                    raise
            sleep(nap)
            nap = min(nap * 2, 1.0)

    def _write(self, settlement: Settlement, leases: list[Lease]) -> None:
        ids = [lease.message_id for lease in leases]
        named = self._named(ids)
        match settlement:
            case Settlement.ACKNOWLEDGED:
                self.check(len(ids), self.session.run(ACKNOWLEDGE, named))
            case Settlement.REJECTED:
                reasons = [lease.reason for lease in leases]
                self._on_dead_letters(self.session.rows(REJECT, named | {"reasons": reasons}))
            case Settlement.REQUEUED:
                rows = self.session.rows(REQUEUE, named | {"deliveries_allowed": self._deliveries_allowed})
                self._on_dead_letters([row for row in rows if row["reason"]])
            case Settlement.RETURNED:
                self.session.rows(GIVE_BACK, named)

    def give_back(self, leases: Iterable[Lease]) -> None:
        """Free messages that were delivered, or claimed for it, and not worked on to the end."""
        self.flush()
        if ids := [lease.message_id for lease in leases]:
            self.session.rows(GIVE_BACK, self._named(ids))

    def _named(self, ids: list[int]) -> dict[str, Any]:
        return {"ids": ids, "consumer": self.session.consumer}

    def end(self) -> None:
        """Note that the session is over: what was acknowledged will be so late, and the rest comes back."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for settlement, lease in waiting:
            self._settle_late(settlement, lease)

    def _settle_late(self, settlement: Settlement, lease: Lease) -> None:
        # Rejected and requeued ones come back: their lease ends with the session, or with the process's next one.
        if settlement is Settlement.ACKNOWLEDGED:
            self._late.add(lease)


class LateAcknowledgements:
    """Finished messages whose session was gone when they finished. One per process and database."""

    def __init__(self) -> None:
        self._leases: list[Lease] = []
        self._lock = threading.Lock()

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._leases.append(lease)

    def waiting(self) -> set[int]:
        """Give the ids of the messages."""
        with self._lock:
            return {lease.message_id for lease in self._leases}

    def flush(self, session: Session) -> None:
        """Delete those that nobody took since, and say how many were taken.

        Raises:
            SessionLost: This session ended, too; they stay for the next.
        """
        if not self._leases:
            return
        with self._lock:
            leases, self._leases = self._leases, []
        parameters = {
            "ids": [lease.message_id for lease in leases],
            "deliveries": [lease.deliveries for lease in leases],
            "consumers": [lease.consumer for lease in leases],
        }
        try:
            deleted = session.run(ACKNOWLEDGE_LATE, parameters)
        except BaseException:
            with self._lock:
                self._leases = leases + self._leases
            raise
        logger.warning(
            "broker.acknowledged_late: %d messages finished after their session was lost; %d were taken by others",
            len(leases),
            len(leases) - deleted,
        )


def headers_of(row: Row) -> dict[str, Any]:
    """Read the headers of a message that was deleted; none, if they cannot be read."""
    try:
        headers = loads(row["headers"])
    except Exception:  # see `claiming.payload_of`
        return {}
    return headers if isinstance(headers, dict) else {}

"""Cleaning up after consumers that died, and dropping what is past its time.

Every consumer sweeps, every few seconds, with one statement. Who is dead is judged by `jobbridge.postgres.presence`;
a number is never given twice, so what is dead stays dead, and two sweepers at once do the same harmless thing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, LiteralString

import psycopg
from kombu.log import get_logger

from jobbridge.broker.consume.settling import DEAD_COLUMNS, headers_of
from jobbridge.broker.options import Options
from jobbridge.broker.routing import CHANNEL_OF_QUEUE
from jobbridge.broker.session import Row, Session
from jobbridge.broker.topology import DELETE_QUEUES
from jobbridge.postgres.locks import CONSUMERS
from jobbridge.postgres.presence import LOOKED, SUSPECTS, Judge, Suspect, look_parameters

logger = get_logger(__name__)

#: So long after a burial, what the dead had asked Postgres for may still be done. Seconds.
LATE_CLAIMS = 60.0

HELD_BY = """
SELECT id, headers::text AS headers
FROM jobbridge_broker.messages
WHERE leased_by = ANY(%(dead)s)
"""

# What was delivered so often and never settled is taken for the reason that its consumers died, if the last one had
# nothing but it; else it is tried alone (`isolation`). Where one delivery is all there is, that has to do.
FREE_LEASES = f"""
WITH beside AS MATERIALIZED (
    SELECT leased_by, count(*) AS number
    FROM jobbridge_broker.messages
    WHERE leased_by = ANY(%(dead)s)
    GROUP BY leased_by
), exhausted AS (
    DELETE FROM jobbridge_broker.messages
    WHERE leased_by = ANY(%(dead)s)
        AND deliveries >= %(deliveries_allowed)s
        AND id <> ALL(%(not_begun)s::bigint[])
        AND (
            %(deliveries_allowed)s = 1
            OR leased_by IN (SELECT leased_by FROM beside WHERE number = 1)
        )
    RETURNING {DEAD_COLUMNS}
), dead AS (
    INSERT INTO jobbridge_broker.dead_letters ({DEAD_COLUMNS}, reason)
    SELECT {DEAD_COLUMNS}, 'too_many_deliveries'
    FROM exhausted
), freed AS (
    UPDATE jobbridge_broker.messages
    SET leased_by = NULL,
        redelivered = true,
        deliveries = CASE
            WHEN id = ANY(%(not_begun)s::bigint[]) THEN greatest(deliveries - 1, 0)
            ELSE least(deliveries, %(deliveries_allowed)s - 1)
        END
    WHERE leased_by = ANY(%(dead)s) AND id NOT IN (SELECT id FROM exhausted)
    RETURNING queue, deliveries
)
SELECT 'too_many_deliveries' AS reason, headers::text AS headers, NULL AS queue, NULL::text AS notified, 1 AS number
FROM exhausted
UNION ALL
SELECT NULL, NULL, queue, pg_notify({CHANNEL_OF_QUEUE}, CASE WHEN has_suspect THEN 'suspect' ELSE '' END)::text, number
FROM (
    SELECT queue, count(*) AS number, bool_or(deliveries >= %(suspect_from)s) AS has_suspect
    FROM freed
    GROUP BY queue
) AS queues
"""  # noqa: S608  # put together from the constants above

DELETE_SUBSCRIPTIONS = """
DELETE FROM jobbridge_broker.subscriptions
WHERE consumer = ANY(%(dead)s)
RETURNING queue
"""

# Exclusive queues go with their owner; the others when their last consumer is gone. One that was declared a moment ago
# has a consumer coming: it is left to UNUSED_QUEUES.
QUEUES_OF_DEAD = """
SELECT name
FROM jobbridge_broker.queues
WHERE owner = ANY(%(dead)s)
    OR (
        auto_delete
        AND owner IS NULL
        AND name = ANY(%(left)s)
        AND used_at < statement_timestamp() - interval '10 seconds'
        AND NOT EXISTS (SELECT FROM jobbridge_broker.subscriptions WHERE queue = queues.name)
    )
"""

DELETE_CONSUMERS = """
DELETE FROM jobbridge_broker.consumers
WHERE id = ANY(%(dead)s)
"""

# When a process ends well: its row goes, unless something of its is left, which whoever sweeps will free.
LEAVE: LiteralString = """
DELETE FROM jobbridge_broker.consumers
WHERE id = %(consumer)s
    AND NOT EXISTS (SELECT FROM jobbridge_broker.messages WHERE leased_by = %(consumer)s)
    AND NOT EXISTS (SELECT FROM jobbridge_broker.subscriptions WHERE consumer = %(consumer)s)
    AND NOT EXISTS (SELECT FROM jobbridge_broker.queues WHERE owner = %(consumer)s)
"""

# Leases that no row speaks for, of the dead: somebody who lives was taken for dead, took messages again, and died
# before it wrote its row again; or a claim was on its way when its process was killed, and was done after the burial.
# Seldom asked.
FIND_NOBODYS: LiteralString = """
SELECT DISTINCT leased_by AS number
FROM jobbridge_broker.messages
WHERE leased_by IS NOT NULL
    AND leased_by IS DISTINCT FROM %(own)s::bigint
    AND NOT EXISTS (SELECT FROM jobbridge_broker.consumers WHERE id = leased_by)
    AND pg_try_advisory_xact_lock_shared(%(consumers)s + leased_by)
    AND clock_timestamp() >= coalesce((SELECT grace_until FROM jobbridge_broker.sweeps), '-infinity')
"""

SWEEP: LiteralString = f"""
WITH {LOOKED}, {SUSPECTS}, expired AS MATERIALIZED (
    SELECT id
    FROM jobbridge_broker.messages
    WHERE leased_by IS NULL AND expires_at <= statement_timestamp()
    ORDER BY expires_at
    LIMIT 500
    FOR UPDATE SKIP LOCKED
), dropped AS (
    DELETE FROM jobbridge_broker.messages AS message
    USING expired
    WHERE message.id = expired.id
    RETURNING message.headers
)
SELECT 'suspect' AS kind, to_json(suspects)::text AS found
FROM suspects
UNION ALL
SELECT 'expired', headers::text
FROM dropped
UNION ALL
SELECT 'unused', name
FROM jobbridge_broker.queues
WHERE used_at + coalesce(expires, CASE WHEN auto_delete THEN interval '1 hour' END) < statement_timestamp()
    AND owner IS NULL
    AND NOT EXISTS (SELECT FROM jobbridge_broker.subscriptions WHERE queue = queues.name)
"""  # noqa: S608  # put together from constants


def leave(connection: psycopg.Connection[Any], consumer: int) -> None:
    """Take the row of a process away that ends well."""
    connection.execute(LEAVE, {"consumer": consumer})


@dataclass(kw_only=True)
class Swept:
    """What a sweep found."""

    dead_letters: list[Row] = field(default_factory=list)
    expired: list[Row] = field(default_factory=list)


class Sweeper:
    """Sweeps for the consumers of one transport."""

    def __init__(self) -> None:
        self._judge = Judge()
        #: Leases that no row spoke for, by the number of their holder, at the look before.
        self._nobodys: set[int] = set()
        #: Whom it has buried, and when.
        self._buried: dict[int, float] = {}

    def sweep(self, session: Session, options: Options) -> Swept:
        """Free what the dead held, delete the queues that died with them, drop what expired."""
        found: dict[str, list[str]] = {"suspect": [], "expired": [], "unused": []}
        for row in session.rows(SWEEP, look_parameters(session.consumer, options.sweep_interval)):
            found[row["kind"]].append(row["found"])
        swept = Swept(expired=[{"headers": headers} for headers in found["expired"]])
        swept.dead_letters = self._free_late_ones(session, options)
        if dead := self._judge.dead(Suspect.of(json.loads(suspect)) for suspect in found["suspect"]):
            swept.dead_letters += bury(session, dead, options)
            self._buried |= dict.fromkeys(dead, monotonic())
        if found["unused"]:
            session.run(DELETE_QUEUES, {"queues": found["unused"]})
        return swept

    def _free_late_ones(self, session: Session, options: Options) -> list[Row]:
        """Free what was leased to the buried afterwards: a claim was on its way, and no row speaks for it."""
        now = monotonic()
        self._buried = {number: at for number, at in self._buried.items() if now - at < LATE_CLAIMS}
        if not self._buried:
            return []
        late = self._leases_of_nobody(session) & self._buried.keys()
        return bury(session, sorted(late), options) if late else []

    def free_nobodys(self, session: Session, options: Options) -> list[Row]:
        """Free leases that no row spoke for at two looks: the living write their rows again.

        Returns:
            The headers of messages that became dead letters, with the reason.
        """
        found = self._leases_of_nobody(session)
        dead, self._nobodys = sorted(found & self._nobodys), found
        return bury(session, dead, options) if dead else []

    def _leases_of_nobody(self, session: Session) -> set[int]:
        rows = session.rows(FIND_NOBODYS, {"own": session.consumer, "consumers": CONSUMERS})
        return {row["number"] for row in rows}


def bury(session: Session, dead: list[int], options: Options) -> list[Row]:
    """Free what these consumers held, and delete what was theirs.

    Returns:
        The headers of messages that became dead letters, with the reason.
    """
    named: dict[str, Any] = {
        "dead": dead,
        "deliveries_allowed": options.deliveries_allowed,
        "suspect_from": options.suspect_from,
        "not_begun": _not_begun(session, dead, options),
    }
    with session.transaction():
        rows = session.rows(FREE_LEASES, named)
        left = [row["queue"] for row in session.rows(DELETE_SUBSCRIPTIONS, named)]
        queues = [row["name"] for row in session.rows(QUEUES_OF_DEAD, named | {"left": left})]
        if queues:
            session.run(DELETE_QUEUES, {"queues": queues})
        session.run(DELETE_CONSUMERS, named)
    for row in rows:
        if row["queue"]:
            logger.warning(
                "broker.freed: %d messages of %r, whose consumer died", row["number"], row["queue"]
            )
    return [row for row in rows if row["reason"]]


def _not_begun(session: Session, dead: list[int], options: Options) -> list[int]:
    """Tell which of their messages were only taken ahead, where somebody knows that."""
    if options.not_begun is None:
        return []
    held = {row["id"]: headers_of(row) for row in session.rows(HELD_BY, {"dead": dead})}
    if not held:
        return []
    try:
        ids = options.not_begun(list(held.values()), dead)
    except Exception:  # a hook of somebody else's: each counts then
        logger.exception("broker.hook_failed: %r", options.not_begun)
        return []
    return [number for number, headers in held.items() if headers.get("id") in ids]

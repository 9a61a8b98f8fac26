"""Queues, exchanges and bindings: shared by all processes, in tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from jobbridge.broker.routing import QueueArguments, topic_pattern
from jobbridge.broker.session import Session

# Written only if something differs, so that the workers of a fleet that starts do not queue up for the row.
DECLARE_QUEUE = """
INSERT INTO jobbridge_broker.queues (name, auto_delete, owner, expires, message_ttl)
VALUES (%(queue)s, %(auto_delete)s, %(owner)s::bigint, %(expires)s::interval, %(message_ttl)s::interval)
ON CONFLICT (name) DO UPDATE
SET auto_delete = excluded.auto_delete,
    owner = excluded.owner,
    expires = excluded.expires,
    message_ttl = excluded.message_ttl,
    used_at = now()
WHERE (queues.auto_delete, queues.owner, queues.expires, queues.message_ttl)
    IS DISTINCT FROM (excluded.auto_delete, excluded.owner, excluded.expires, excluded.message_ttl)
    OR queues.expires IS NOT NULL
    OR queues.auto_delete
"""

QUEUE_STATE = """
SELECT
    EXISTS (SELECT FROM jobbridge_broker.queues WHERE name = %(queue)s) AS is_declared,
    (SELECT count(*) FROM jobbridge_broker.subscriptions WHERE queue = %(queue)s) AS consumers
"""

# As AMQP counts: what waits, not what is leased.
QUEUE_SIZE = """
SELECT count(*) AS size
FROM jobbridge_broker.messages
WHERE queue = %(queue)s AND leased_by IS NULL
"""

PURGE_QUEUE = """
DELETE FROM jobbridge_broker.messages
WHERE queue = %(queue)s AND leased_by IS NULL
"""

DELETE_QUEUES = """
WITH names AS (
    SELECT unnest(%(queues)s::text[]) AS queue
), unbound AS (
    DELETE FROM jobbridge_broker.bindings USING names WHERE bindings.queue = names.queue
), emptied AS (
    DELETE FROM jobbridge_broker.messages USING names WHERE messages.queue = names.queue
), unsubscribed AS (
    DELETE FROM jobbridge_broker.subscriptions USING names WHERE subscriptions.queue = names.queue
)
DELETE FROM jobbridge_broker.queues USING names WHERE queues.name = names.queue
"""

DECLARE_EXCHANGE = """
INSERT INTO jobbridge_broker.exchanges (name, type)
VALUES (%(exchange)s, %(type)s)
ON CONFLICT (name) DO NOTHING
"""

EXCHANGE_TYPE = """
SELECT type
FROM jobbridge_broker.exchanges
WHERE name = %(exchange)s
"""

DELETE_EXCHANGE = """
WITH unbound AS (
    DELETE FROM jobbridge_broker.bindings WHERE exchange = %(exchange)s
)
DELETE FROM jobbridge_broker.exchanges WHERE name = %(exchange)s
"""

BIND = """
INSERT INTO jobbridge_broker.bindings (exchange, queue, routing_key, pattern)
VALUES (%(exchange)s, %(queue)s, %(routing_key)s, %(pattern)s)
ON CONFLICT (exchange, queue, routing_key) DO NOTHING
"""

UNBIND = """
DELETE FROM jobbridge_broker.bindings
WHERE exchange = %(exchange)s AND queue = %(queue)s AND routing_key = %(routing_key)s
"""

LIST_BINDINGS = """
SELECT queue, exchange, routing_key
FROM jobbridge_broker.bindings
ORDER BY exchange, queue, routing_key
"""

SUBSCRIBE = """
INSERT INTO jobbridge_broker.subscriptions (consumer, queue)
VALUES (%(consumer)s, %(queue)s)
ON CONFLICT (queue, consumer) DO NOTHING
"""

# Gives the queue back when it is to be deleted: its last consumer has left.
UNSUBSCRIBE = """
WITH left_queue AS (
    DELETE FROM jobbridge_broker.subscriptions
    WHERE consumer = %(consumer)s AND queue = %(queue)s
    RETURNING queue
), used AS (
    UPDATE jobbridge_broker.queues
    SET used_at = now()
    FROM left_queue
    WHERE queues.name = left_queue.queue AND queues.expires IS NOT NULL AND NOT queues.auto_delete
)
SELECT queues.name
FROM left_queue
JOIN jobbridge_broker.queues ON queues.name = left_queue.queue
WHERE queues.auto_delete
    AND NOT EXISTS (
        SELECT
        FROM jobbridge_broker.subscriptions
        WHERE queue = left_queue.queue AND consumer <> %(consumer)s
    )
"""


#: What this process declared, by database: publishing asks for it again and again. Only what lasts; of a queue also
#: its mere name.
declared: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)


def forget_declared(database: str) -> None:
    """Declare everything again: the database may be another one after a lost session."""
    declared.pop(database, None)


def is_declared(database: str, queue: str) -> bool:
    """Whether this process declared the queue, and has no reason to do it again."""
    return ("queue", queue) in declared.get(database, ())


def declare_queue(
    session: Session,
    queue: str,
    *,
    is_exclusive: bool,
    is_auto_deleted: bool,
    arguments: Mapping[str, Any] | None,
) -> None:
    """Make the queue, or give it these properties.

    An exclusive queue belongs to the consumer that declared it last, and goes with it. Others are not locked out,
    as they would be in AMQP: a worker that restarts under its name must not wait until its predecessor is buried.
    """
    asked = QueueArguments.of(arguments)
    if is_exclusive:
        session.own_queues.add(queue)
    session.run(
        DECLARE_QUEUE,
        {
            "queue": queue,
            "auto_delete": is_auto_deleted,
            "owner": session.become_consumer() if is_exclusive else None,
            "expires": asked.expires,
            "message_ttl": asked.message_ttl,
        },
    )


def bind(session: Session, exchange: str, queue: str, routing_key: str) -> None:
    """Lead messages of the exchange that fit the key to the queue."""
    session.run(
        BIND,
        {
            "exchange": exchange,
            "queue": queue,
            "routing_key": routing_key,
            "pattern": topic_pattern(routing_key),
        },
    )


def unsubscribe(session: Session, queue: str) -> None:
    """Stop being a consumer of the queue; an auto-delete queue goes with its last one."""
    rows = session.rows(UNSUBSCRIBE, {"consumer": session.consumer, "queue": queue})
    if rows:
        session.run(DELETE_QUEUES, {"queues": [row["name"] for row in rows]})

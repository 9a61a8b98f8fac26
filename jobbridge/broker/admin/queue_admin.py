"""Looking at, and taking back, what waits in the queues, on a connection of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import dict_row

from jobbridge.broker.routing import notification_channel
from jobbridge.postgres.caller_connection import driver_connection

# What a consumer holds is not waiting any more: it is stopped by other means.
DELETE_WAITING = """
DELETE FROM jobbridge_broker.messages
WHERE correlation_id = %(correlation_id)s AND leased_by IS NULL
"""

#: What is due later, or when somebody says so. A message that a consumer has, or that is due, stays as it is.
MAKE_DUE = """
UPDATE jobbridge_broker.messages
SET due_at = NULL
WHERE correlation_id = %(correlation_id)s AND leased_by IS NULL AND due_at IS NOT NULL
RETURNING queue
"""

QUEUE_DEPTHS = """
SELECT
    queue,
    coalesce(ready, 0) AS ready,
    coalesce(scheduled, 0) AS scheduled,
    coalesce(leased, 0) AS leased,
    coalesce(dead, 0) AS dead_letters,
    coalesce(consumers, 0) AS consumers
FROM (SELECT name AS queue FROM jobbridge_broker.queues) AS declared
FULL JOIN (
    SELECT
        queue,
        count(*) FILTER (WHERE leased_by IS NULL AND due_at IS NULL) AS ready,
        count(*) FILTER (WHERE leased_by IS NULL AND due_at IS NOT NULL) AS scheduled,
        count(*) FILTER (WHERE leased_by IS NOT NULL) AS leased
    FROM jobbridge_broker.messages
    GROUP BY queue
) AS stored USING (queue)
FULL JOIN (
    SELECT queue, count(*) AS dead
    FROM jobbridge_broker.dead_letters
    GROUP BY queue
) AS buried USING (queue)
FULL JOIN (
    SELECT queue, count(*) AS consumers
    FROM jobbridge_broker.subscriptions
    GROUP BY queue
) AS served USING (queue)
ORDER BY queue
"""

# Those that last: not the ones of a process, which Celery's remote control makes.
QUEUE_NAMES = """
SELECT name FROM jobbridge_broker.queues
WHERE NOT auto_delete AND owner IS NULL AND expires IS NULL
ORDER BY name
LIMIT 10000
"""

QUEUES_BOUND = """
SELECT DISTINCT bindings.queue
FROM jobbridge_broker.exchanges
JOIN jobbridge_broker.bindings ON bindings.exchange = exchanges.name
WHERE exchanges.name = %(exchange)s::text
    AND CASE exchanges.type
        WHEN 'fanout' THEN true
        WHEN 'topic' THEN '.' || %(routing_key)s::text ~ bindings.pattern
        ELSE bindings.routing_key = %(routing_key)s::text
    END
ORDER BY bindings.queue
"""

# By whatever exchange, but for one that looks at no key.
QUEUES_KEYED = """
SELECT DISTINCT bindings.queue
FROM jobbridge_broker.exchanges
JOIN jobbridge_broker.bindings ON bindings.exchange = exchanges.name
WHERE exchanges.type <> 'fanout'
    AND (
        bindings.routing_key = %(routing_key)s::text
        OR (exchanges.type = 'topic' AND '.' || %(routing_key)s::text ~ bindings.pattern)
    )
ORDER BY bindings.queue
LIMIT 100
"""

# Of each queue the first entries of two indexes, and of each priority the first one: the oldest is among those. Tasks'
# priorities are 0 to 9. Not `priority = …`: then the primary key would give the order, too, and for each priority that
# nothing has all messages would be read (10,000,000: minutes).
LOOK = """
SELECT asked.queue, ready.count AS ready, later.count AS later, oldest.published_at AS oldest_at
FROM unnest(%(queues)s::text[]) AS asked (queue)
CROSS JOIN LATERAL (
    SELECT count(*) FROM (
        SELECT FROM jobbridge_broker.messages
        WHERE queue = asked.queue AND leased_by IS NULL AND due_at IS NULL
        LIMIT %(limit)s
    ) AS counted
) AS ready
CROSS JOIN LATERAL (
    SELECT count(*) FROM (
        SELECT FROM jobbridge_broker.messages
        WHERE queue = asked.queue AND leased_by IS NULL AND due_at IS NOT NULL
        LIMIT %(limit)s
    ) AS counted
) AS later
CROSS JOIN LATERAL (
    SELECT min(first.published_at) AS published_at
    FROM generate_series(0, 9) AS asked_priority (priority)
    CROSS JOIN LATERAL (
        SELECT published_at FROM jobbridge_broker.messages
        WHERE queue = asked.queue AND leased_by IS NULL AND due_at IS NULL
            AND priority <= asked_priority.priority AND priority >= asked_priority.priority
        ORDER BY priority DESC, id
        LIMIT 1
    ) AS first
) AS oldest
"""

# Two looks, since only what waits has an index on the correlation id; what is leased is little. What is held is due at
# infinity, which Python does not have.
OF_CORRELATION_ID = """
SELECT message.*, consumer.host, consumer.pid FROM (
    SELECT id, queue, priority, expires_at, leased_by, deliveries, published_at,
        CASE WHEN due_at < 'infinity' THEN due_at WHEN due_at IS NOT NULL THEN '9999-12-31 00:00Z' END AS due_at
    FROM jobbridge_broker.messages
    WHERE correlation_id = %(correlation_id)s AND leased_by IS NULL
    UNION ALL
    SELECT id, queue, priority, expires_at, leased_by, deliveries, published_at,
        CASE WHEN due_at < 'infinity' THEN due_at WHEN due_at IS NOT NULL THEN '9999-12-31 00:00Z' END AS due_at
    FROM jobbridge_broker.messages
    WHERE correlation_id = %(correlation_id)s AND leased_by IS NOT NULL
) AS message
LEFT JOIN jobbridge_broker.consumers AS consumer ON consumer.id = message.leased_by
ORDER BY message.id
"""

# In the order in which messages are delivered; nobody needs to know more than "a lot".
AHEAD = """
SELECT count(*) FROM (
    SELECT FROM jobbridge_broker.messages
    WHERE queue = %(queue)s AND leased_by IS NULL AND due_at IS NULL
        AND (priority > %(priority)s OR (priority = %(priority)s AND id < %(id)s))
    LIMIT 10000
) AS ahead
"""

BURIED = """
SELECT reason FROM jobbridge_broker.dead_letters WHERE correlation_id = %(correlation_id)s ORDER BY died_at DESC LIMIT 1
"""


@dataclass(frozen=True, kw_only=True)
class WaitingMessage:
    """A message in a queue.

    Attributes:
        due_at: None: it can be delivered now.
        leased_by: The consumer that has it; None: it waits.
        host: Of the consumer's process, with its `pid`.
    """

    id: int
    queue: str
    priority: int
    due_at: datetime | None
    expires_at: datetime | None
    leased_by: int | None
    deliveries: int
    published_at: datetime
    host: str | None
    pid: int | None


@dataclass(frozen=True, kw_only=True)
class QueueDepth:
    """How many messages of a queue are where, and how many consumers it has."""

    queue: str
    ready: int
    scheduled: int
    leased: int
    dead_letters: int
    consumers: int


@dataclass(frozen=True, kw_only=True)
class QueueLook:
    """What a look at one queue tells.

    Attributes:
        ready: Messages that can be delivered now; counted up to the limit.
        later: Messages that are not due yet; the same.
        oldest_at: Since when the oldest ready one is there.
    """

    queue: str
    ready: int
    later: int
    oldest_at: datetime | None


def queue_names(connection: object) -> list[str]:
    """Name the queues that last, in order."""
    return [name for (name,) in driver_connection(connection).execute(QUEUE_NAMES).fetchall()]


def queues_bound(connection: object, exchange: str, routing_key: str) -> list[str]:
    """Name the queues to which an exchange sends what has that routing key, in order."""
    told = {"exchange": exchange, "routing_key": routing_key}
    return [name for (name,) in driver_connection(connection).execute(QUEUES_BOUND, told).fetchall()]


def queues_keyed(connection: object, routing_key: str) -> list[str]:
    """Name the queues that are bound by this routing key, or by a pattern that it fits, in order; a hundred at most."""
    told = {"routing_key": routing_key}
    return [name for (name,) in driver_connection(connection).execute(QUEUES_KEYED, told).fetchall()]


def look_at_queues(connection: object, queues: Sequence[str], *, limit: int) -> list[QueueLook]:
    """Count what waits in these queues, up to `limit` each: so it costs no more, however long they are."""
    cursor = driver_connection(connection).cursor(row_factory=dict_row)
    params = {"queues": list(queues), "limit": limit}
    return [QueueLook(**row) for row in cursor.execute(LOOK, params).fetchall()]


def delete_waiting(connection: object, correlation_id: str) -> int:
    """Delete the messages of that AMQP correlation id (Celery's task id) that no consumer holds.

    Args:
        connection: As for `publishing_on`; nothing is committed.
        correlation_id: Exact.

    Returns:
        How many were deleted. One that is being claimed at this moment is waited for, and left if it was.
    """
    cursor = driver_connection(connection).execute(DELETE_WAITING, {"correlation_id": correlation_id})
    return cursor.rowcount


def make_due(connection: object, correlation_id: str) -> int:
    """Have the messages of that AMQP correlation id (Celery's task id) that are due later be due now.

    Args:
        connection: As for `publishing_on`; nothing is committed.
        correlation_id: Exact.

    Returns:
        How many there were.
    """
    own = driver_connection(connection)
    queues = [row[0] for row in own.execute(MAKE_DUE, {"correlation_id": correlation_id}).fetchall()]
    for queue in queues:
        own.execute("SELECT pg_notify(%s, '')", [notification_channel(queue)])
    return len(queues)


def queue_depths(connection: object) -> list[QueueDepth]:
    """Count the messages of every queue that is declared, used or served. Reads all messages."""
    cursor = driver_connection(connection).cursor(row_factory=dict_row)
    return [QueueDepth(**row) for row in cursor.execute(QUEUE_DEPTHS).fetchall()]


def messages_of(connection: object, correlation_id: str) -> list[WaitingMessage]:
    """Give the messages of that AMQP correlation id (Celery's task id), waiting or held, oldest first."""
    with driver_connection(connection).cursor(row_factory=dict_row) as cursor:
        return [
            WaitingMessage(**row)
            for row in cursor.execute(OF_CORRELATION_ID, {"correlation_id": correlation_id})
        ]


def count_ahead(connection: object, message: WaitingMessage) -> int:
    """Count the messages that are delivered before this one; at most 10,000."""
    params = {"queue": message.queue, "priority": message.priority, "id": message.id}
    row = driver_connection(connection).execute(AHEAD, params).fetchone()
    return 0 if row is None else int(row[0])


def why_buried(connection: object, correlation_id: str) -> str | None:
    """Give the reason why the message is a dead letter; None if it is none."""
    row = driver_connection(connection).execute(BURIED, {"correlation_id": correlation_id}).fetchone()
    return None if row is None else str(row[0])

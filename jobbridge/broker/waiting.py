"""Looking at, and taking back, what waits in the queues, on a connection of the caller."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import dict_row

from jobbridge.broker.publishing import driver_connection

# What a consumer holds is not waiting any more: it is stopped by other means.
DELETE_WAITING = """
DELETE FROM jobbridge_broker.messages
WHERE correlation_id = %(correlation_id)s AND leased_by IS NULL
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


@dataclass(frozen=True, kw_only=True)
class QueueDepth:
    """How many messages of a queue are where, and how many consumers it has."""

    queue: str
    ready: int
    scheduled: int
    leased: int
    dead_letters: int
    consumers: int


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


def queue_depths(connection: object) -> list[QueueDepth]:
    """Count the messages of every queue that is declared, used or served. Reads all messages."""
    cursor = driver_connection(connection).cursor(row_factory=dict_row)
    return [QueueDepth(**row) for row in cursor.execute(QUEUE_DEPTHS).fetchall()]

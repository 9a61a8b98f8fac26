"""Messages that were given up, for those who look after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import dict_row, kwargs_row

from jobbridge.broker.admin.transfer import StoredMessage, store_messages
from jobbridge.postgres.caller_connection import driver_connection

#: Queue by queue, along the index; each one's newest, and no more of them than anybody would read.
LATELY = """
SELECT known.name AS queue, newest.letters, newest.last_at
FROM jobbridge_broker.queues AS known
CROSS JOIN LATERAL (
    SELECT count(*) AS letters, max(died_at) AS last_at FROM (
        SELECT died_at FROM jobbridge_broker.dead_letters
        WHERE queue = known.name AND died_at > now() - %(within)s::interval
        ORDER BY died_at DESC
        LIMIT %(limit)s
    ) AS each
) AS newest
WHERE newest.letters > 0
ORDER BY newest.last_at DESC
"""

# In the order in which they were sent: the key has it.
PAGE = """
SELECT id, queue, reason, died_at, deliveries, correlation_id, headers ->> 'task' AS task
FROM jobbridge_broker.dead_letters
WHERE id > %(after)s AND died_at < %(before)s
ORDER BY id
LIMIT %(limit)s
"""

TAKE = """
DELETE FROM jobbridge_broker.dead_letters
WHERE id = %(id)s AND died_at < %(before)s
RETURNING queue, priority, correlation_id, content_type, content_encoding, headers, properties, body
"""

BURY = "DELETE FROM jobbridge_broker.dead_letters WHERE id = ANY(%(ids)s) AND died_at < %(before)s"

# Reads all dead letters: they have no index for it, and are few.
BURY_OF = """
DELETE FROM jobbridge_broker.dead_letters
WHERE correlation_id = ANY(%(correlation_ids)s) AND died_at < %(before)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetters:
    """How many messages of a queue were given up, `limit` at most, and when the last."""

    queue: str
    letters: int
    last_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A message that was given up.

    Attributes:
        reason: `rejected`, or `too_many_deliveries`.
        deliveries: How often somebody took it.
        task: The name of its task; None: it is of none.
    """

    id: int
    queue: str
    reason: str
    died_at: datetime
    deliveries: int
    correlation_id: str | None
    task: str | None


def dead_lately(connection: object, *, within: timedelta, limit: int = 1000) -> list[DeadLetters]:
    """Count the messages that were given up within that time, by queue."""
    with driver_connection(connection).cursor(row_factory=kwargs_row(DeadLetters)) as cursor:
        return cursor.execute(LATELY, {"within": within, "limit": limit}).fetchall()


def dead_letters(connection: object, *, before: datetime, after: int, limit: int) -> list[DeadLetter]:
    """Give the next messages that were given up before an instant, by their numbers; `after` that one."""
    params = {"before": before, "after": after, "limit": limit}
    with driver_connection(connection).cursor(row_factory=kwargs_row(DeadLetter)) as cursor:
        return cursor.execute(PAGE, params).fetchall()


def send_dead_again(connection: object, number: int, *, before: datetime) -> bool:
    """Put a message that was given up before an instant back into its queue, as if it had not been delivered yet.

    Args:
        connection: As for `publishing_on`; nothing is committed.
        number: Its id.
        before: One that died later stays.

    Returns:
        False: there is no such one (any more).
    """
    params: dict[str, Any] = {"id": number, "before": before}
    with driver_connection(connection).cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(TAKE, params).fetchone()
    if row is None:
        return False
    store_messages(connection, [StoredMessage(**{**row, "body": bytes(row["body"])})])
    return True


def delete_dead(connection: object, numbers: Sequence[int], *, before: datetime) -> int:
    """Delete messages that were given up before an instant; gives how many."""
    params = {"ids": list(numbers), "before": before}
    return driver_connection(connection).execute(BURY, params).rowcount if numbers else 0


def delete_dead_of(connection: object, correlation_ids: Sequence[str], *, before: datetime) -> int:
    """Delete those of these AMQP correlation ids (Celery's task ids) that were given up before an instant."""
    params = {"correlation_ids": list(correlation_ids), "before": before}
    return driver_connection(connection).execute(BURY_OF, params).rowcount if correlation_ids else 0

"""Messages that leave the queues for elsewhere, or come from there, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from jobbridge.broker.publishing import PUBLISH_TO_QUEUE, parameters_of
from jobbridge.postgres.caller_connection import driver_connection

# What a consumer is taking at this moment is left to it.
HOLD = """
SELECT id, queue, priority, expires_at, correlation_id, content_type, content_encoding, headers, properties, body
FROM jobbridge_broker.messages
WHERE correlation_id = ANY(%(correlation_ids)s) AND leased_by IS NULL
FOR UPDATE SKIP LOCKED
"""

DELETE = "DELETE FROM jobbridge_broker.messages WHERE id = ANY(%(ids)s)"

# Two looks: only what waits has an index on the correlation id; what is leased is little.
HEADERS_OF = """
SELECT correlation_id, headers, false AS is_leased FROM jobbridge_broker.messages
WHERE correlation_id = ANY(%(correlation_ids)s) AND leased_by IS NULL
UNION ALL
SELECT correlation_id, headers, true FROM jobbridge_broker.messages
WHERE leased_by IS NOT NULL AND correlation_id = ANY(%(correlation_ids)s)
"""

FORMS = """
SELECT content_type, length(body) FROM jobbridge_broker.messages
WHERE correlation_id = ANY(%(correlation_ids)s) AND leased_by IS NULL
"""


@dataclass(frozen=True, kw_only=True)
class StoredMessage:
    """A message as the queues have it.

    Attributes:
        id: None: it is not there yet.
        expires_at: None: as its headers say.
        body: As it was sent, compressed if its headers say so.
    """

    queue: str
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    body: bytes
    content_type: str | None
    content_encoding: str | None
    correlation_id: str | None = None
    priority: int = 0
    expires_at: datetime | None = None
    id: int | None = field(default=None, compare=False)


def hold_waiting(connection: object, correlation_ids: Sequence[str]) -> list[StoredMessage]:
    """Lock the messages of these AMQP correlation ids that no consumer has, or is taking now.

    Args:
        connection: As for `publishing_on`; they are locked until its transaction ends.
        correlation_ids: Exact.
    """
    with driver_connection(connection).cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(HOLD, {"correlation_ids": list(correlation_ids)}).fetchall()
    return [StoredMessage(**{**row, "body": bytes(row["body"])}) for row in rows]


def delete_messages(connection: object, ids: Sequence[int]) -> int:
    """Delete messages that this transaction has locked; gives how many."""
    return driver_connection(connection).execute(DELETE, {"ids": list(ids)}).rowcount if ids else 0


def store_messages(connection: object, messages: Iterable[StoredMessage]) -> None:
    """Put messages into their queues: the commit tells consumers."""
    rows = [_parameters(message) for message in messages]
    if rows:
        with driver_connection(connection).cursor() as cursor:
            cursor.executemany(PUBLISH_TO_QUEUE, rows)


def headers_of(
    connection: object, correlation_ids: Sequence[str]
) -> list[tuple[str, Mapping[str, Any], bool]]:
    """Give correlation id and headers of the messages of these ids, and whether a consumer has it."""
    cursor = driver_connection(connection).execute(HEADERS_OF, {"correlation_ids": list(correlation_ids)})
    return cursor.fetchall()


def forms_of(connection: object, correlation_ids: Sequence[str]) -> list[tuple[str | None, int]]:
    """Give content type and size in bytes of the messages of these ids that wait."""
    cursor = driver_connection(connection).execute(FORMS, {"correlation_ids": list(correlation_ids)})
    return cursor.fetchall()


def _parameters(message: StoredMessage) -> dict[str, Any]:
    told = {
        "headers": dict(message.headers),
        "properties": {
            "correlation_id": message.correlation_id,
            "delivery_mode": 2,
            "priority": message.priority,
            "delivery_info": {"exchange": "", "routing_key": message.queue},
            **message.properties,
        },
        "body": message.body,
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
    }
    parameters = parameters_of(told, "", message.queue)
    if message.expires_at is not None:  # a time to live has been running since it was sent
        parameters |= {"message_expires_at": message.expires_at, "ttl": None}
    return parameters

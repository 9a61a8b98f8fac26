"""What a test does with messages: takes them one by one in its own transaction, and brings nearer what is due later.

No consumer is needed, and nobody is leased anything: what is taken is deleted, and is put back if it goes back.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from psycopg.rows import dict_row

from jobbridge.broker.consume.claiming import payload_of
from jobbridge.broker.routing import CHANNEL_OF_QUEUE
from jobbridge.postgres.caller_connection import DriverConnection

# Tasks only: control messages and replies are their receivers'.
_TAKE: LiteralString = """
DELETE FROM jobbridge_broker.messages
WHERE id = (
    SELECT id
    FROM jobbridge_broker.messages
    WHERE leased_by IS NULL AND (due_at IS NULL OR due_at <= clock_timestamp())
        AND headers ->> 'task' IS NOT NULL AND id <> ALL(%(without)s::bigint[])
    ORDER BY priority DESC, coalesce(due_at, published_at), id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING id, queue, priority, deliveries, redelivered, content_type, content_encoding, headers::text AS headers,
    properties::text AS properties, body, correlation_id, expires_at
"""
_PUT_BACK: LiteralString = """
INSERT INTO jobbridge_broker.messages (queue, priority, deliveries, redelivered, content_type, content_encoding,
    headers, properties, body, correlation_id, expires_at)
VALUES (%(queue)s, %(priority)s, %(deliveries)s + 1, true, %(content_type)s, %(content_encoding)s,
    %(headers)s::json, %(properties)s::json, %(body)s, %(correlation_id)s, %(expires_at)s)
RETURNING id
"""
_NEXT: LiteralString = """
SELECT min(due_at) FROM jobbridge_broker.messages WHERE leased_by IS NULL AND due_at < 'infinity'
"""
_TIMED: LiteralString = """
SELECT id, headers::text AS headers
FROM jobbridge_broker.messages
WHERE leased_by IS NULL AND (headers ->> 'eta' IS NOT NULL OR headers ->> 'expires' IS NOT NULL)
ORDER BY id
FOR UPDATE
"""
_REWRITE: LiteralString = "UPDATE jobbridge_broker.messages SET headers = %(headers)s::json WHERE id = %(id)s"
# What is due joins the ready ones at once: consumers have noted when to look for what is due.
_SHIFT: LiteralString = """
UPDATE jobbridge_broker.messages
SET due_at = CASE WHEN due_at - %(by)s > clock_timestamp() THEN due_at - %(by)s END, expires_at = expires_at - %(by)s
WHERE leased_by IS NULL AND (due_at < 'infinity' OR expires_at < 'infinity')
"""
_TELL = f"""
SELECT pg_notify({CHANNEL_OF_QUEUE}, '')
FROM (SELECT DISTINCT queue FROM jobbridge_broker.messages WHERE leased_by IS NULL) AS queues
"""  # noqa: S608  # put together from the constants above
_TIMES = ("eta", "expires")


def take_one(connection: DriverConnection, *, without: Collection[int] = ()) -> dict[str, Any] | None:
    """Take the message of a task that is due, of any queue, as a worker that serves all would; None: there is none.

    Args:
        without: Numbers of messages to leave.
    """
    row = connection.cursor(row_factory=dict_row).execute(_TAKE, {"without": list(without)}).fetchone()
    return None if row is None else {**row, "body": bytes(row["body"])}


def put_back(connection: DriverConnection, row: dict[str, Any]) -> int:
    """Let a message that was taken wait in its queue again; gives its new number."""
    found = connection.execute(_PUT_BACK, row).fetchone()
    assert found is not None
    return int(found[0])


def payload(row: dict[str, Any]) -> dict[str, Any]:
    """Give a message that was taken as kombu's virtual transports have it."""
    found = payload_of(row)
    found["properties"]["delivery_tag"] = str(row["id"])
    return found


def next_due(connection: DriverConnection) -> datetime | None:
    """Give when the next message is due that is not yet; None: there is none."""
    row = connection.execute(_NEXT).fetchone()
    found: datetime | None = row[0] if row else None
    return found


def bring_nearer(connection: DriverConnection, by: timedelta) -> None:
    """Have all messages that wait be due, and expire, so much earlier; workers are told."""
    timed = connection.cursor(row_factory=dict_row).execute(_TIMED).fetchall()
    for row in timed:
        headers = earlier(json.loads(row["headers"]), by)
        connection.execute(_REWRITE, {"id": row["id"], "headers": json.dumps(headers)})
    connection.execute(_SHIFT, {"by": by})
    connection.execute(_TELL)


def earlier(headers: dict[str, Any], by: timedelta) -> dict[str, Any]:
    """Give a message's headers with its times so much earlier."""
    return headers | {
        name: _earlier(headers[name], by) for name in _TIMES if isinstance(headers.get(name), str)
    }


def _earlier(instant: str, by: timedelta) -> str:
    moved = datetime.fromisoformat(instant) - by
    return moved.replace(tzinfo=UTC).isoformat() if moved.tzinfo is None else moved.isoformat()

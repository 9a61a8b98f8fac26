"""Which messages are still there, for those who must know that nothing will be delivered any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from jobbridge.broker.consume.settling import headers_of
from jobbridge.postgres.caller_connection import driver_connection

# Waiting and leased messages are asked for apart: each has an index of its own, and the leased ones are few. A dead
# letter of long ago may have the id of a job that was sent again since, so all are told.
FIND = """
SELECT correlation_id, headers::text AS headers, NULL AS reason
FROM jobbridge_broker.messages
WHERE correlation_id = ANY(%(correlation_ids)s) AND leased_by IS NULL
UNION ALL
SELECT correlation_id, headers::text, NULL
FROM jobbridge_broker.messages
WHERE correlation_id = ANY(%(correlation_ids)s) AND leased_by IS NOT NULL
UNION ALL
SELECT correlation_id, headers::text, reason
FROM jobbridge_broker.dead_letters
WHERE correlation_id = ANY(%(correlation_ids)s)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundMessage:
    """A message in a queue, held by a consumer, or dead.

    Attributes:
        reason: Why it is a dead letter; None: it is none.
    """

    correlation_id: str
    headers: dict[str, Any]
    reason: str | None


def find_messages(connection: object, correlation_ids: Sequence[str]) -> list[FoundMessage]:
    """Give what there is of these AMQP correlation ids (Celery's task ids), in any order."""
    with driver_connection(connection).cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(FIND, {"correlation_ids": list(correlation_ids)}).fetchall()
    return [
        FoundMessage(correlation_id=row["correlation_id"], headers=headers_of(row), reason=row["reason"])
        for row in rows
    ]

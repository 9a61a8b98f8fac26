"""Messages that were given up, for those who look after them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import kwargs_row

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


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetters:
    """How many messages of a queue were given up, `limit` at most, and when the last."""

    queue: str
    letters: int
    last_at: datetime


def dead_lately(connection: object, *, within: timedelta, limit: int = 1000) -> list[DeadLetters]:
    """Count the messages that were given up within that time, by queue."""
    with driver_connection(connection).cursor(row_factory=kwargs_row(DeadLetters)) as cursor:
        return cursor.execute(LATELY, {"within": within, "limit": limit}).fetchall()

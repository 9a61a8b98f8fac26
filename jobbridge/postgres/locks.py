"""The advisory locks: every key that is taken in the database, and the election of leaders.

A key is 64 bits. Two spaces hold a number in their lower 48 bits; all other keys are the hash of a name.

| key | who holds it | for how long |
|---|---|---|
| `CONSUMERS` + number | process or session of that row in `jobbridge_broker.consumers` | as long as it lives |
| `WORKERS` + number | the worker process of that number | as long as it lives |
| hash of `jobbridge service NAME` | who leads that service | as long as its session lives |
| 7308332045 | who leads `schedules`, Temporal's | as long as its session lives |
| hash of `jobbridge migrate` | `jobbridge migrate` | its run |
| hash of `jobbridge declared schedules` | who writes the declared schedules | its transaction |
| hash of `jobbridge event TENANT JOB NAME`, `… key KEY NAME` | who sends that event, or waits | its transaction |
| hash of `jobbridge calls TENANT JOB` | who ends a job that it called, or has it wait for such | its transaction |
| hash of `psa.assets TENANT` | the shipped handler that imports assets of the tenant | its transaction |

The keys are those of the release before: its processes and ours see each other's locks.

Source: PostgreSQL manual, "Advisory Locks".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

CONSUMERS = 0x4A42 << 48
WORKERS = 0x4A57 << 48

MIGRATE: LiteralString = "hashtextextended('jobbridge migrate', 0)"
DECLARED_SCHEDULES: LiteralString = "hashtextextended('jobbridge declared schedules', 0)"
#: As in migration 0028, by the parameters `tenant`, `name` and what is in `whom`; and by `tenant` and `job_id`.
EVENT: LiteralString = (
    "hashtextextended('jobbridge event ' || %(tenant)s::text || ' ' || whom || ' ' || %(name)s::text, 0)"
)
CALLS: LiteralString = (
    "hashtextextended('jobbridge calls ' || %(tenant)s::text || ' ' || %(job_id)s::text, 0)"
)

#: Which of these nobody leads, for whoever asks: from now on, until its session ends.
LEAD: LiteralString = """
SELECT name
FROM unnest(%(names)s::text[]) AS asked (name)
WHERE pg_try_advisory_lock(
    CASE name WHEN 'schedules' THEN 7308332045 ELSE hashtextextended('jobbridge service ' || name, 0) END
)
"""


def lead(connection: psycopg.Connection[Any], names: Sequence[str]) -> set[str]:
    """Take the lead of those services that nobody leads; it ends with the connection."""
    return {name for (name,) in connection.execute(LEAD, {"names": list(names)}).fetchall()}


async def lead_async(connection: psycopg.AsyncConnection[Any], name: str) -> bool:
    """Take the lead of a service, if nobody has it; it ends with the connection."""
    cursor = await connection.execute(LEAD, {"names": [name]})
    return await cursor.fetchone() is not None

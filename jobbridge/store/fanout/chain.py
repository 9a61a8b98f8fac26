"""Jobs that belong together: those of a chain, from its first job on, what they sent themselves, and those of a group.

Children of a fan-out are left out: there may be 100,000, and their fan-out tells of them (`children`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.jobs.rows import JobRow

#: Jobs of one chain, or group, that are read to find those which are shown.
READ = 500

#: Each part follows an index of a few jobs. The first job of a chain is its own root, and is not in that index. A
#: fan-out is looked up for each: as NOT EXISTS, Postgres might read all of them.
CHAIN: LiteralString = """
WITH together AS MATERIALIZED (
    (
        SELECT job_id FROM public.jobs
        WHERE tenant = %(tenant)s AND root_id = %(root_id)s AND root_id <> job_id
        ORDER BY created_at, job_id
        LIMIT %(read)s
    )
    UNION
    (
        SELECT job_id FROM public.jobs
        WHERE tenant = %(tenant)s AND group_id = %(group_id)s
        ORDER BY created_at, job_id
        LIMIT %(read)s
    )
    UNION
    SELECT unnest(ARRAY[%(root_id)s, %(job_id)s]::uuid[])
)
SELECT job.job_id, job.type, job.status, job.created_at, job.parent_id, left(job.error, 300) AS error
FROM together
JOIN public.jobs AS job ON job.tenant = %(tenant)s AND job.job_id = together.job_id
WHERE job.job_id = %(job_id)s OR (
    SELECT fan_out.parent_id FROM public.job_families AS fan_out
    WHERE fan_out.tenant = job.tenant AND fan_out.parent_id = job.parent_id
) IS NULL
ORDER BY job.created_at, job.job_id
LIMIT %(limit)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainJob:
    """A job of those that belong together, in short."""

    job_id: UUID
    type: str
    status: str
    created_at: datetime
    parent_id: UUID | None
    error: str | None


def chain_of(database: Database, job: JobRow, *, limit: int) -> Sequence[ChainJob]:
    """Give the jobs that belong to this one, itself among them, the oldest first; of the same tenant."""
    params = {
        "tenant": job.tenant,
        "job_id": job.job_id,
        "root_id": job.root_id or job.job_id,
        "group_id": job.group_id,
        "read": READ,
        "limit": limit,
    }

    def ask(own: DriverConnection) -> list[ChainJob]:
        with psycopg.Cursor(own, row_factory=class_row(ChainJob)) as cursor:
            return cursor.execute(CHAIN, params).fetchall()

    return database.run(ask)

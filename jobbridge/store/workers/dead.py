"""Jobs that were given up, for those who look after them: read in the order in which they died, and deleted.

Both go along `jobs_unsuccessful_ended_idx`, a page at a time, however many there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.status import FINAL
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows, tuples
from jobbridge.store.workers.retention import GONE

#: Where the next page begins.
Place = tuple[datetime, UUID]

# No cast of the tenant: it is text in some databases and a uuid in others.
_MINE: LiteralString = " AND tenant = %(tenant)s"


def _page(of: LiteralString) -> LiteralString:
    return f"""
SELECT tenant, job_id, task_id, type, runner_type, queue, attempt, left(error, 1000) AS error, completed_at
FROM public.jobs
WHERE unsuccessful = 'failed' AND completed_at < %(before)s
  AND (completed_at, job_id) > (%(after_at)s, %(after_id)s)
  AND (%(type)s::text IS NULL OR type = %(type)s::text){of}
ORDER BY completed_at, job_id
LIMIT %(limit)s
"""


PAGE: LiteralString = _page("")
PAGE_OF_TENANT: LiteralString = _page(_MINE)

KNOWN: LiteralString = "SELECT job_id FROM public.jobs WHERE job_id = ANY(%(job_ids)s)"

#: One that was sent again since it was looked at is not failed, or died later, and stays.
PURGE: LiteralString = f"""
WITH portion AS MATERIALIZED (
    SELECT tenant, job_id, status, completed_at, created_at
    FROM public.jobs
    WHERE tenant = %(tenant)s AND job_id = ANY(%(job_ids)s)
      AND unsuccessful = 'failed' AND completed_at < %(before)s
), doomed AS (
    SELECT tenant, job_id, %(before)s::timestamptz AS completed_before FROM portion
), {GONE}"""

NOW: LiteralString = "SELECT clock_timestamp()"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadJob:
    """A job that failed for good, in short.

    Attributes:
        died_at: When it failed the last time.
    """

    key: JobKey
    task_id: str
    type: str
    engine: Engine
    queue: str | None
    attempts: int
    error: str | None
    died_at: datetime


def dead_page(
    database: Database,
    *,
    before: datetime,
    after: Place | None = None,
    tenant: TenantId | None = None,
    type_: str | None = None,
    limit: int,
) -> Sequence[DeadJob]:
    """Give the next jobs that failed before an instant, the first to die first.

    Args:
        database: Where they are.
        before: They failed before it.
        after: The last one of the page before.
        tenant: Whose; None: everybody's.
        type_: Of this type; None: of all.
        limit: At most so many.
    """
    at, job_id = after or ("-infinity", UUID(int=0))
    params = {
        "before": before,
        "after_at": at,
        "after_id": job_id,
        "tenant": tenant,
        "type": type_,
        "limit": limit,
    }
    statement = PAGE if tenant is None else PAGE_OF_TENANT
    return database.ask(lambda own: all_rows(own, _dead_job, statement, params), otherwise=[])


def _dead_job(
    *,
    tenant: object,
    job_id: UUID,
    runner_type: str,
    attempt: int,
    completed_at: datetime,
    **more: str | None,
) -> DeadJob:
    return DeadJob(
        key=JobKey(tenant=TenantId(str(tenant)), job_id=job_id),
        task_id=str(more["task_id"]),
        type=str(more["type"]),
        engine=Engine.parse(runner_type),
        queue=more["queue"],
        attempts=attempt,
        error=more["error"],
        died_at=completed_at,
    )


def known_jobs(database: Database, job_ids: Collection[UUID]) -> set[UUID]:
    """Tell which of these jobs have a row."""
    if not job_ids:
        return set()
    return {row[0] for row in database.run(lambda own: tuples(own, KNOWN, {"job_ids": list(job_ids)}))}


def purge_dead(database: Database, tenant: TenantId, job_ids: Sequence[UUID], *, before: datetime) -> int:
    """Delete those of a tenant's jobs that failed before an instant, with their steps; gives how many."""
    params = {"tenant": tenant, "job_ids": list(job_ids), "before": before, "final": sorted(FINAL)}
    row = database.run(lambda own: own.execute(PURGE, params).fetchone())
    return 0 if row is None else int(row[1])


def clock(database: Database) -> datetime:
    """Give the database's time."""
    [(now,)] = database.run(lambda own: tuples(own, NOW))
    at: datetime = now
    return at

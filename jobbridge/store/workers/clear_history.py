"""Delete history at somebody's word: jobs that have ended, of some statuses, made before an hour.

What would go is counted from the counts by the hour (see `counts.counts`), so it is exact and no job is read. What
goes is deleted in portions, as by the pruner; what is open and what recurs stays, whatever is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from jobbridge.core.keys import TenantId
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.store.database import Database
from jobbridge.store.workers.retention import GONE, Portion, delete_portion

#: Jobs that one statement reads.
BATCH = 1000

Place = tuple[datetime, UUID]
BEGINNING: Place = (datetime.min, UUID(int=0))

# No cast of the parameter: a tenant is text in some databases and a uuid in others.
_MINE: LiteralString = " AND tenant = %(tenant)s"


def _count(of: LiteralString) -> LiteralString:
    return f"""
SELECT date_trunc('month', hour, 'UTC') AS month, status, sum(jobs)::bigint
FROM (
    SELECT hour, status, jobs FROM public.job_hours
    WHERE status = ANY(%(statuses)s) AND hour < %(before)s{of}
    UNION ALL
    SELECT hour, status, 1 FROM public.job_count_changes
    WHERE status = ANY(%(statuses)s) AND hour < %(before)s{of}
    UNION ALL
    SELECT hour, status_before, -1 FROM public.job_count_changes
    WHERE status_before = ANY(%(statuses)s) AND hour < %(before)s{of}
) AS each
GROUP BY month, status
HAVING sum(jobs) > 0
ORDER BY month, status
"""


def _clear(of: LiteralString) -> LiteralString:
    return f"""
WITH portion AS MATERIALIZED (
    SELECT tenant, job_id, status, completed_at, created_at
    FROM public.jobs
    WHERE created_at < %(before)s AND (created_at, job_id) > (%(after_at)s, %(after_id)s){of}
    ORDER BY created_at, job_id
    LIMIT %(limit)s
), doomed AS (
    SELECT tenant, job_id, 'infinity'::timestamptz AS completed_before
    FROM portion
    WHERE status = ANY(%(statuses)s) AND status = ANY(%(final)s)
), {GONE}"""


COUNT: LiteralString = _count("")
COUNT_OF_TENANT: LiteralString = _count(_MINE)
CLEAR: LiteralString = _clear("")
CLEAR_OF_TENANT: LiteralString = _clear(_MINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clearance:
    """What is to go.

    Attributes:
        statuses: Final ones; others are left out.
        before: Made before this hour.
        tenant: Whose; None: everybody's.
    """

    statuses: Collection[JobStatus]
    before: datetime
    tenant: TenantId | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MonthCount:
    """How many jobs that were made in a month have a status."""

    month: datetime
    status: JobStatus
    jobs: int


def count(database: Database, asked: Clearance) -> Sequence[MonthCount]:
    """Count what would go, by month and status."""
    statement = COUNT if asked.tenant is None else COUNT_OF_TENANT
    rows = database.run(lambda own: own.execute(statement, _params(asked)).fetchall())
    return [MonthCount(month=month, status=JobStatus(status), jobs=jobs) for month, status, jobs in rows]


def clear(database: Database, asked: Clearance, *, after: Place, limit: int = BATCH) -> Portion | None:
    """Delete among the next jobs; None when there are no more.

    Args:
        database: Where the jobs are.
        asked: Which.
        after: The `last` of the portion before.
        limit: At most so many jobs are read.
    """
    statement = CLEAR if asked.tenant is None else CLEAR_OF_TENANT
    return delete_portion(database, statement, _params(asked), after=after, limit=limit)


def _params(asked: Clearance) -> dict[str, object]:
    statuses = sorted(status.value for status in asked.statuses if status in FINAL)
    return {"statuses": statuses, "before": asked.before, "tenant": asked.tenant}

"""The way to jobs of rare statuses, which have no index (decision 0003): the hours and tenants that have such jobs.

A statement begins with `CELLS` and reads of `jobs` what is `IN_CELL`: of each such hour and tenant all jobs, along an
index. So it costs as much as there are jobs made in the same hours, and not as there are jobs.

Where such jobs are everywhere that would be the whole table, in no order. So no more than `MOST_JOBS` are read: of the
newest hours and of the oldest, which are those where something is amiss; `IS_CUT` tells of it. The subquery that reads
them ends with OFFSET 0: Postgres would else join as if there were a few cells more or less, and read the whole table.
"""

from __future__ import annotations

from typing import Any, LiteralString

from jobbridge.core.status import JobStatus

#: Cells of each status that are looked at, at either end of time.
MOST_CELLS = 2_000
#: Jobs that are read in them: a second or two, if each is a page from the disk.
MOST_JOBS = 300_000

#: Cells that have, or may have, jobs in one of `statuses`; what was not folded yet counts, too (see `counting`).
CELLS: LiteralString = """asked AS MATERIALIZED (
    SELECT wanted.status, either.source, either.tenant, either.hour
    FROM unnest(%(statuses)s::text[]) AS wanted (status)
    CROSS JOIN LATERAL (
        (
            SELECT 'newest' AS source, tenant, hour FROM public.job_hours
            WHERE status = wanted.status ORDER BY hour DESC LIMIT %(cells)s
        )
        UNION ALL
        (
            SELECT 'oldest', tenant, hour FROM public.job_hours
            WHERE status = wanted.status ORDER BY hour LIMIT %(cells)s
        )
        UNION ALL
        (
            SELECT 'changes', tenant, hour FROM public.job_count_changes
            WHERE status = wanted.status GROUP BY tenant, hour LIMIT %(cells)s
        )
    ) AS either
), weighed AS MATERIALIZED (
    SELECT one.tenant, one.hour, own.jobs,
        least(row_number() OVER (ORDER BY one.hour), row_number() OVER (ORDER BY one.hour DESC)) AS place
    FROM (SELECT DISTINCT tenant, hour FROM asked) AS one
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(jobs), 0) AS jobs FROM public.job_hours
        WHERE tenant = one.tenant AND status = ANY(%(all_statuses)s) AND hour = one.hour
    ) AS own
), summed AS MATERIALIZED (
    SELECT tenant, hour, sum(jobs) OVER (ORDER BY place, hour, tenant) - jobs AS before FROM weighed
), cell AS MATERIALIZED (
    SELECT tenant, hour FROM summed WHERE before < %(jobs)s
)"""

#: Whether there are cells that were not looked at.
IS_CUT: LiteralString = """(
    (SELECT count(*) FROM cell) < (SELECT count(*) FROM weighed)
    OR EXISTS (SELECT FROM asked WHERE source <> 'oldest' GROUP BY status, source HAVING count(*) >= %(cells)s)
)"""

#: `%(jobs)s` again: one cell may have more than all are to have.
IN_CELL: LiteralString = """jobs.tenant = cell.tenant AND jobs.created_at >= cell.hour
    AND jobs.created_at < cell.hour + interval '1 hour'
    ORDER BY created_at DESC, job_id DESC
    LIMIT %(jobs)s"""

_ALL_STATUSES = [status.value for status in JobStatus]


def bounds(*, cells: int = MOST_CELLS, jobs: int = MOST_JOBS) -> dict[str, Any]:
    """Give what a statement with `CELLS` takes beside the statuses."""
    return {"cells": cells, "jobs": jobs, "all_statuses": _ALL_STATUSES}

"""The way to jobs of rare statuses, which have no index (decision 0003): the hours and tenants that have such jobs.

A statement begins with `CELLS` and reads of `jobs` what is `IN_CELL`: of each such hour and tenant all jobs, along an
index. So it costs as much as there are jobs made in the same hours, and not as there are jobs. The subquery that reads
them ends with OFFSET 0: Postgres would else join as if there were a few cells more or less, and read the whole table.
"""

from __future__ import annotations

from typing import LiteralString

#: Cells that have, or may have, jobs in one of `statuses`; what was not folded yet counts, too (see `counting`).
CELLS: LiteralString = """cell AS MATERIALIZED (
    SELECT tenant, hour FROM public.job_hours WHERE status = ANY(%(statuses)s)
    UNION
    SELECT tenant, hour FROM public.job_count_changes WHERE status = ANY(%(statuses)s)
)"""

IN_CELL: LiteralString = """jobs.tenant = cell.tenant AND jobs.created_at >= cell.hour
    AND jobs.created_at < cell.hour + interval '1 hour'"""

"""How many jobs there are: exact, and without reading them.

A trigger on `jobs` inserts a row into `job_count_changes` for each job that is made, changes its status or engine, or
goes, in the transaction that does it. `fold` adds such rows to `job_counts` and `job_hours`, and deletes them. What is
asked adds what was not folded yet, in the same statement: so an answer is what `SELECT count(*) FROM jobs` would give
in that moment, whether somebody folds or not. A statement that makes or deletes more than a thousand jobs adds to both
tables at once, in a part of its own (see `partial_counts`).

The same rows say which jobs started or ended, and `fold` adds that to the tables of `flow`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.counts.flow import ADD_FLOW, FLOW_COLUMNS
from jobbridge.store.database import Database

#: Changes of one `fold`: some 100 ms.
BATCH = 10_000

#: In the order of their keys: two who fold at once wait for each other, and do not block each other.
FOLD: LiteralString = f"""
WITH taken AS (
    DELETE FROM public.job_count_changes
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM public.job_count_changes LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING tenant, hour, engine_before, status_before, engine, status, {FLOW_COLUMNS}
), moved AS MATERIALIZED (
    SELECT tenant, status, hour, engine, sum(jobs) AS jobs
    FROM (
        SELECT tenant, status, hour, engine, 1 AS jobs FROM taken WHERE status IS NOT NULL
        UNION ALL
        SELECT tenant, status_before, hour, engine_before, -1 FROM taken WHERE status_before IS NOT NULL
    ) AS each
    GROUP BY 1, 2, 3, 4
    HAVING sum(jobs) <> 0
), totals AS (
    INSERT INTO public.job_counts AS total (tenant, engine, status, jobs)
    SELECT tenant, engine, status, sum(jobs) FROM moved GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT ON CONSTRAINT job_counts_pkey DO UPDATE SET jobs = total.jobs + excluded.jobs
), hours AS (
    INSERT INTO public.job_hours AS cell (tenant, status, hour, engine, jobs)
    SELECT tenant, status, hour, engine, jobs FROM moved ORDER BY 1, 2, 3, 4
    ON CONFLICT ON CONSTRAINT job_hours_pkey DO UPDATE SET jobs = cell.jobs + excluded.jobs
    RETURNING cell.tenant, cell.status, cell.hour, cell.engine, cell.jobs
), {ADD_FLOW}
SELECT (SELECT count(*) FROM taken), tenant, status, hour, engine, jobs FROM hours
UNION ALL
SELECT (SELECT count(*) FROM taken), NULL, NULL, NULL, NULL, NULL
"""

HAS_CHANGES: LiteralString = "SELECT FROM public.job_count_changes OFFSET %(number)s - 1 LIMIT 1"

#: Nobody has to read a cell without jobs.
DELETE_EMPTY: LiteralString = """
DELETE FROM public.job_hours AS cell
USING unnest(%(statuses)s::text[], %(hours)s::timestamptz[], %(engines)s::text[]) AS empty (status, hour, engine)
WHERE cell.tenant = ANY(%(tenants)s) AND cell.status = empty.status AND cell.hour = empty.hour
  AND cell.engine = empty.engine AND cell.jobs = 0
"""


def _totals(of: LiteralString) -> LiteralString:
    return f"""
SELECT engine, status, sum(jobs)::bigint
FROM (
    SELECT engine, status, jobs FROM public.job_counts WHERE {of}
    UNION ALL
    SELECT engine, status, 1 FROM public.job_count_changes WHERE status IS NOT NULL AND {of}
    UNION ALL
    SELECT engine_before, status_before, -1 FROM public.job_count_changes WHERE status_before IS NOT NULL AND {of}
) AS each
GROUP BY engine, status
HAVING sum(jobs) <> 0
"""


# No cast of the parameter: a tenant is text in some databases and a uuid in others.
_MINE: LiteralString = "tenant = %(tenant)s"

TOTALS: LiteralString = _totals("true")
TOTALS_OF_TENANT: LiteralString = _totals(_MINE)


class CountStore:
    """Counts jobs, and folds what changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def totals(self, tenant: TenantId | None = None) -> Mapping[tuple[Engine, JobStatus], int]:
        """Count the jobs of a tenant, or all; what is not in it is zero."""
        statement = TOTALS if tenant is None else TOTALS_OF_TENANT
        rows: list[tuple[Any, ...]] = self._database.ask(
            lambda own: own.execute(statement, {"tenant": tenant}).fetchall(), otherwise=[]
        )
        counts: dict[tuple[Engine, JobStatus], int] = {}
        for engine, status, jobs in rows:
            known = (Engine.parse(engine), JobStatus(status))
            counts[known] = counts.get(known, 0) + jobs
        return counts

    def has_changes(self, number: int) -> bool:
        """Tell whether there are so many that were not folded yet."""
        return bool(self._database.run(lambda own: own.execute(HAS_CHANGES, {"number": number}).fetchall()))

    def fold(self, *, limit: int = BATCH) -> int:
        """Add some changes to the counts; gives how many. Answers are the same before and after."""

        def work(own: DriverConnection) -> int:
            with own.transaction():
                rows = own.execute(FOLD, {"limit": limit}).fetchall()
                delete_empty(own, [row[1:] for row in rows if row[5] == 0])
                return int(rows[0][0])

        return self._database.run(work)


def delete_empty(connection: DriverConnection, cells: list[tuple[Any, ...]]) -> None:
    """Delete those of these cells (tenant, status, hour, engine, jobs) that have no jobs."""
    if not cells:
        return
    tenants, statuses, hours, engines, _ = map(list, zip(*cells, strict=True))
    params = {"tenants": list(set(tenants)), "statuses": statuses, "hours": hours, "engines": engines}
    connection.execute(DELETE_EMPTY, params)

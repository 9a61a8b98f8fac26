"""Counts the jobs that there were before the trigger did, while everybody goes on writing.

One statement sees one moment: the jobs there are, what was folded, and the changes that are not folded yet. What is in
the first and in neither of the others was never counted, and is added. Folding only moves numbers from the last to the
second, so it does not matter who folds meanwhile; and once all is counted, there is nothing to add.
"""

from __future__ import annotations

from typing import LiteralString

from jobbridge.postgres.caller_connection import DriverConnection

#: The keys are named by their constraints: migrations run this before and after 0013 gave them a part.
#: Reads all jobs, in the order in which they lie. Cells are added in the order of their keys, as `counts.FOLD` does.
RECOUNT: LiteralString = """
WITH missing AS MATERIALIZED (
    SELECT tenant, status, hour, engine, sum(jobs) AS jobs
    FROM (
        SELECT tenant, status, date_trunc('hour', created_at, 'UTC') AS hour, runner_type AS engine,
            count(*) AS jobs
        FROM public.jobs
        GROUP BY 1, 2, 3, 4
        UNION ALL
        SELECT tenant, status, hour, engine, -jobs FROM public.job_hours
        UNION ALL
        SELECT tenant, status, hour, engine, -1 FROM public.job_count_changes WHERE status IS NOT NULL
        UNION ALL
        SELECT tenant, status_before, hour, engine_before, 1 FROM public.job_count_changes
        WHERE status_before IS NOT NULL
    ) AS each
    GROUP BY 1, 2, 3, 4
    HAVING sum(jobs) <> 0
), hours AS (
    INSERT INTO public.job_hours AS cell (tenant, status, hour, engine, jobs)
    SELECT tenant, status, hour, engine, jobs FROM missing ORDER BY 1, 2, 3, 4
    ON CONFLICT ON CONSTRAINT job_hours_pkey DO UPDATE SET jobs = cell.jobs + excluded.jobs
), totals AS (
    INSERT INTO public.job_counts AS total (tenant, engine, status, jobs)
    SELECT tenant, engine, status, sum(jobs) FROM missing GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT ON CONSTRAINT job_counts_pkey DO UPDATE SET jobs = total.jobs + excluded.jobs
)
SELECT count(*) FROM missing
"""


def recount(connection: DriverConnection) -> int:
    """Add what was never counted; gives in how many cells there was something. Nobody waits for it."""
    row = connection.execute(RECOUNT, prepare=False).fetchone()
    assert row is not None
    connection.execute("ANALYZE public.job_hours, public.job_counts")
    return int(row[0])

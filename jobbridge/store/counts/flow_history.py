"""Tells the flow what started and ended before anybody recorded it, from the jobs that there still are.

The migration that makes the trigger notes when that was. Writers had to end before it could be made, and every start
and end has the time of the clock, so each is either before that moment and not told by the trigger, or after and told.
"""

from __future__ import annotations

from typing import LiteralString

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.counts.flow import BUCKET, DAYS_SHOWN, HOURS_KEPT, MILLISECONDS

#: In the transaction that made the trigger, afterwards.
NOTE: LiteralString = """
DO $$ BEGIN
    EXECUTE format('COMMENT ON TABLE public.job_flow IS %L', 'recorded since ' || clock_timestamp());
END $$
"""

SINCE: LiteralString = """
SELECT substring(obj_description('public.job_flow'::regclass) FROM '^recorded since (.*)')::timestamptz
"""

FORGET: LiteralString = "COMMENT ON TABLE public.job_flow IS NULL"

#: Only the last run of each job is known. Not added to what `ever` happened: that counts from the trigger on.
FILL: LiteralString = f"""
WITH happened AS (
    SELECT tenant, started_at AS at, runner_type AS engine, 'processing' AS status,
        (1000 * extract(epoch FROM started_at - greatest(created_at, run_at)))::bigint AS flow_ms
    FROM public.jobs
    WHERE created_at > %(since)s - %(days)s::interval AND started_at < %(since)s
    UNION ALL
    SELECT tenant, completed_at, runner_type, status, (1000 * extract(epoch FROM completed_at - started_at))::bigint
    FROM public.jobs
    WHERE created_at > %(since)s - %(days)s::interval AND completed_at < %(since)s
      AND status IN ('completed', 'failed', 'cancelled', 'expired', 'skipped')
), cells AS MATERIALIZED (
    SELECT tenant, span, date_trunc(span, at, 'UTC') AS at, engine, status, {BUCKET} AS bucket, count(*) AS jobs,
        sum({MILLISECONDS}) AS ms
    FROM happened CROSS JOIN (VALUES ('hour'), ('day')) AS known (span)
    WHERE span = 'day' OR at > %(since)s - %(hours)s::interval
    GROUP BY 1, 2, 3, 4, 5, 6
), flow AS (
    INSERT INTO public.job_flow AS cell (tenant, span, at, engine, status, bucket, jobs, ms)
    SELECT tenant, span, at, engine, status, bucket, jobs, ms FROM cells ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT ON CONSTRAINT job_flow_pkey
    DO UPDATE SET jobs = cell.jobs + excluded.jobs, ms = cell.ms + excluded.ms
)
INSERT INTO public.job_flow_totals AS cell (span, at, engine, status, bucket, jobs, ms)
SELECT span, at, engine, status, bucket, sum(jobs), sum(ms) FROM cells GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
ON CONFLICT ON CONSTRAINT job_flow_totals_pkey
DO UPDATE SET jobs = cell.jobs + excluded.jobs, ms = cell.ms + excluded.ms
"""


def record_history(connection: DriverConnection) -> bool:
    """Add the last `DAYS_SHOWN` before the trigger; tells whether there was something to do. Nobody waits for it.

    Args:
        connection: In a transaction, so that it is done once.
    """
    row = connection.execute(SINCE).fetchone()
    if row is None or row[0] is None:
        return False
    params = {"since": row[0], "days": DAYS_SHOWN, "hours": HOURS_KEPT}
    connection.execute(FILL, params, prepare=False)
    connection.execute(FORGET)
    connection.execute("ANALYZE public.job_flow, public.job_flow_totals")
    return True

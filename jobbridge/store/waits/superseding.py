"""Steps that are to be made again: what was recorded of them stays to be read, and is not found by the handler."""

from __future__ import annotations

from typing import LiteralString

from jobbridge.core.keys import JobKey
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.fetch import tuples

#: Steps that nobody makes: what happened to the job.
_NOTES: LiteralString = "'attempt', 'fallback', 'recovered', 'moved', 'children', 'snooze'"
#: What tells such a step from one that was cancelled, beside its status: since when, and what it was.
SUPERSEDED = "superseded"

# The first step of that name, and all that was recorded after it; not attempts, and not what happened to the job.
# They turn `cancelled`: releases that know of no superseded steps look for completed ones, too.
SUPERSEDE: LiteralString = f"""
UPDATE public.job_details AS step
SET status = 'cancelled',
    metadata = step.metadata || jsonb_build_object(
        'superseded', jsonb_build_object('at', clock_timestamp(), 'was', step.status)
    ),
    processed_at = coalesce(step.processed_at, clock_timestamp()),
    updated_at = clock_timestamp()
WHERE step.tenant = %(tenant)s AND step.job_id = %(job_id)s
  AND (step.metadata ? 'durable' OR step.step_name NOT IN ({_NOTES}))
  AND NOT step.metadata ? 'superseded'
  AND step.sequence >= (
      SELECT min(first.sequence) FROM public.job_details AS first
      WHERE first.tenant = %(tenant)s AND first.job_id = %(job_id)s AND first.step_name = %(name)s
        AND (first.metadata ? 'durable' OR first.step_name NOT IN ({_NOTES}))
        AND NOT first.metadata ? 'superseded'
  )
RETURNING step.step_name
"""

NAMES: LiteralString = f"""
SELECT step.step_name FROM public.job_details AS step
WHERE step.tenant = %(tenant)s AND step.job_id = %(job_id)s
  AND (step.metadata ? 'durable' OR step.step_name NOT IN ({_NOTES})) AND NOT step.metadata ? 'superseded'
GROUP BY step.step_name
ORDER BY min(step.sequence)
"""


def supersede(connection: DriverConnection, job: JobKey, name: str) -> list[str]:
    """Mark the steps of a name, and all after the first of them, as to be made again; gives their names.

    Args:
        connection: In the transaction that sends the job again.
        job: Which.
        name: Of the step; none of that name: nothing is marked.
    """
    params = {"tenant": job.tenant, "job_id": job.job_id, "name": name}
    return [str(step_name) for (step_name,) in tuples(connection, SUPERSEDE, params)]


def step_names(connection: DriverConnection, job: JobKey) -> list[str]:
    """Name the steps that are recorded of a job, the first one first."""
    params = {"tenant": job.tenant, "job_id": job.job_id}
    return [str(step_name) for (step_name,) in tuples(connection, NAMES, params)]

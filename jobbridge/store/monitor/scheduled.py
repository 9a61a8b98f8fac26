"""Jobs that wait: those that a purge or a revoke by stamps ends, and those whose time has not come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from jobbridge.core.keys import Engine
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.jobs.queries import COLUMNS
from jobbridge.store.jobs.rows import JobRow, job_row
from jobbridge.store.values import as_jsonb

#: Those of Temporal; of the others the broker has the messages.
UNSTARTED: LiteralString = f"""
SELECT {COLUMNS} FROM public.jobs
WHERE completed_at IS NULL AND status IN ('pending', 'queued', 'scheduled', 'retrying', 'waiting') AND queue = %(queue)s
  AND runner_type = 'temporal'
"""

SCHEDULED: LiteralString = f"""
SELECT {COLUMNS} FROM public.jobs
WHERE completed_at IS NULL AND status IN ('scheduled', 'retrying', 'waiting') AND run_at > now()
  AND queue = ANY(%(queues)s) AND runner_type = %(engine)s
ORDER BY run_at, job_id
LIMIT %(limit)s
"""


#: Only of jobs that have not ended: an index has these. A stamp of the row and one that is told are equal as JSON.
STAMPED: LiteralString = """
SELECT task_id FROM public.jobs
WHERE completed_at IS NULL AND metadata ? 'celery_stamps' AND EXISTS (
    SELECT 1
    FROM jsonb_each(%(stamps)s::jsonb) AS told, jsonb_array_elements(told.value) AS stamp
    WHERE metadata -> 'celery_stamps' -> told.key @> jsonb_build_array(stamp.value)
)
"""


def unstarted_jobs(database: Database, queue: str) -> Sequence[JobRow]:
    """Give the jobs of Temporal's that wait in a queue, in no order."""
    return database.run(lambda own: all_rows(own, job_row, UNSTARTED, {"queue": queue}))


def scheduled_jobs(
    database: Database, queues: Sequence[str], engine: Engine, *, limit: int
) -> Sequence[JobRow]:
    """Give the jobs of these queues that wait for their time, the next first."""
    told = {"queues": list(queues), "engine": engine.value, "limit": limit}
    return database.run(lambda own: all_rows(own, job_row, SCHEDULED, told))


def stamped_jobs(database: Database, stamps: Mapping[str, Sequence[Any]]) -> Sequence[str]:
    """Give the task ids of jobs that have not ended and have one of these stamps.

    Args:
        stamps: Names of stamps, each with the values that are meant.
    """
    told = {"stamps": as_jsonb({name: list(values) for name, values in stamps.items()})}
    return database.run(lambda own: [task_id for (task_id,) in own.execute(STAMPED, told).fetchall()])

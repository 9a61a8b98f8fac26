"""Jobs that wait in a queue: those that a purge ends, and those whose time has not come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from jobbridge.core.keys import Engine
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.jobs.queries import COLUMNS
from jobbridge.store.jobs.rows import JobRow, job_row

#: Those of Temporal; of the others the broker has the messages.
UNSTARTED: LiteralString = f"""
SELECT {COLUMNS} FROM public.jobs
WHERE completed_at IS NULL AND status IN ('pending', 'queued', 'scheduled', 'retrying') AND queue = %(queue)s
  AND runner_type = 'temporal'
"""

SCHEDULED: LiteralString = f"""
SELECT {COLUMNS} FROM public.jobs
WHERE completed_at IS NULL AND status IN ('scheduled', 'retrying') AND run_at > now()
  AND queue = ANY(%(queues)s) AND runner_type = %(engine)s
ORDER BY run_at, job_id
LIMIT %(limit)s
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

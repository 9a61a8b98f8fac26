"""What workers run now, without an index on the status (decision 0003): the counts lead to the hours that have such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from jobbridge.store.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.jobs.cells import IN_CELL

#: Of the newest hours and tenants that have running jobs: what was made long before and runs still may be missing where
#: thousands of others run.
RUNNING: LiteralString = f"""
WITH cell AS MATERIALIZED (
    SELECT tenant, hour FROM (
        (SELECT tenant, hour FROM public.job_hours WHERE status = 'processing' ORDER BY hour DESC LIMIT %(cells)s)
        UNION
        (
            SELECT tenant, hour FROM public.job_count_changes WHERE status = 'processing'
            GROUP BY tenant, hour ORDER BY hour DESC LIMIT %(cells)s
        )
    ) AS either
    ORDER BY hour DESC
    LIMIT %(cells)s
)
SELECT job.*
FROM cell CROSS JOIN LATERAL (
    SELECT tenant, job_id, type, queue, worker_number, attempt, started_at, progress
    FROM (
        SELECT tenant, job_id, type, queue, worker_number, attempt, started_at, progress, status
        FROM public.jobs
        WHERE {IN_CELL}
    ) AS read
    WHERE status = 'processing' AND worker_number = ANY(%(numbers)s)
    OFFSET 0
) AS job
ORDER BY job.started_at
LIMIT %(limit)s
"""

#: Which queues were lately used, and with which engine.
RECENT_QUEUES: LiteralString = """
SELECT DISTINCT runner_type, queue
FROM (SELECT runner_type, queue FROM public.jobs ORDER BY created_at DESC, job_id DESC LIMIT 1000) AS newest
WHERE queue IS NOT NULL
"""

_CELLS = 100
#: Jobs that are read in one of them.
_JOBS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningJob:
    """A job that a worker runs."""

    tenant: str
    job_id: UUID
    type: str
    queue: str | None
    worker_number: int
    attempt: int
    started_at: datetime | None
    progress: float | None


def running_jobs(database: Database, numbers: Sequence[int], *, limit: int = 500) -> Sequence[RunningJob]:
    """Give the jobs that the workers of these numbers run, those first that began first."""

    def fetch(own: DriverConnection) -> list[RunningJob]:
        with psycopg.Cursor(own, row_factory=class_row(RunningJob)) as cursor:
            params = {"numbers": list(numbers), "cells": _CELLS, "jobs": _JOBS, "limit": limit}
            return cursor.execute(RUNNING, params).fetchall()

    return database.run(fetch) if numbers else []


def recent_queues(database: Database) -> set[tuple[str, str]]:
    """Name the engines and queues of the newest thousand jobs."""
    rows = database.run(lambda own: own.execute(RECENT_QUEUES).fetchall())
    return {(engine, queue) for engine, queue in rows}

"""Open jobs that may have been left: what the reaper and the reconcilers look at.

Rare statuses have no index (decision 0003). Who asks for jobs in the order of their age pays for that: the whole table
is read, in portions, and rarely (decision 0006). Who does not is led to them by the counts (`cells`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import kwargs_row

from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.store.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.jobs.cells import CELLS, IN_CELL, bounds

_COLUMNS: LiteralString = """tenant, job_id, task_id, type, status, attempt, delivery, runner_type, external_id, broker,
    worker_number, worker, expires_at, created_at, updated_at"""

#: What these workers had begun, after the last of the portion before. Reads the whole table, when a worker has died.
OF_WORKERS: LiteralString = f"""
SELECT {_COLUMNS}
FROM public.jobs
WHERE (created_at, job_id) > (%(after_at)s, %(after_id)s)
  AND status = 'processing' AND worker_number = ANY(%(numbers)s) AND runner_type = ANY(%(engines)s)
ORDER BY created_at, job_id
LIMIT %(limit)s
"""

#: What an engine has, by its row; the oldest first, after the last of the portion before. A job without a delivery
#: waits for others (a chain that took its place, its children), and nothing is to bring it on.
OPEN: LiteralString = f"""
SELECT {_COLUMNS}
FROM public.jobs
WHERE (created_at, job_id) > (%(after_at)s, %(after_id)s)
  AND status IN ('queued', 'scheduled', 'retrying', 'processing')
  AND delivery IS NOT NULL
  AND runner_type = ANY(%(engines)s)
  AND updated_at < now() - %(older_than)s::interval
ORDER BY created_at, job_id
LIMIT %(limit)s
"""

#: What is said to be under way, for who looks whether it is. A job that waits for others was begun, and has neither
#: delivery nor worker; what was written by hand, or adopted, may have no delivery either, and belongs here. Where such
#: jobs are everywhere, some of them (see `cells`).
UNDER_WAY: LiteralString = f"""
WITH {CELLS}
SELECT job.*
FROM cell CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM (
        SELECT {_COLUMNS} FROM public.jobs
        WHERE {IN_CELL}
    ) AS read
    WHERE status = ANY(%(statuses)s)
      AND (delivery IS NOT NULL OR worker IS NOT NULL OR attempt = 0)
      AND runner_type = ANY(%(engines)s)
    OFFSET 0
) AS job
ORDER BY updated_at
LIMIT %(limit)s
"""

COUNT_STEPS: LiteralString = """
SELECT count(*) FROM public.job_details
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND step_name = %(name)s
"""

HAS_UNDELIVERED: LiteralString = """
SELECT EXISTS (
    SELECT FROM public.jobs
    WHERE undelivered_since <= now() - %(older_than)s::interval
      AND message IS NOT NULL
      AND status IN ('pending', 'retrying', 'queued', 'scheduled')
)
"""

#: Before any job.
BEGINNING = (datetime.min, UUID(int=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenJob:
    """What of a job tells whether it was left.

    Two that are equal: nothing happened to the job between.
    """

    key: JobKey
    task_id: str
    type: str
    status: JobStatus
    attempt: int
    delivery: UUID | None
    runner_type: Engine
    external_id: str | None
    broker: str | None
    worker_number: int | None
    worker: str | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


def begun_by(
    database: Database, numbers: Sequence[int], engine: Engine, *, after: tuple[datetime, UUID], limit: int
) -> list[OpenJob]:
    """Give a portion of the running jobs that were begun by workers of these numbers."""
    params = {"numbers": list(numbers), "engines": _names(engine), "limit": limit}
    return _fetch(database, OF_WORKERS, params | _after(after))


def open_jobs(
    database: Database, engine: Engine, *, older_than: timedelta, after: tuple[datetime, UUID], limit: int
) -> list[OpenJob]:
    """Give a portion of the jobs that an engine is said to have and that nothing happened to for so long."""
    params = {"engines": _names(engine), "older_than": older_than, "limit": limit}
    return _fetch(database, OPEN, params | _after(after))


def jobs_under_way(
    database: Database, engine: Engine, *, statuses: Sequence[JobStatus], limit: int
) -> list[OpenJob]:
    """Give the jobs that an engine is said to have, those first to which nothing happened for the longest time."""
    params = {"engines": _names(engine), "statuses": [status.value for status in statuses], "limit": limit}
    return _fetch(database, UNDER_WAY, params | bounds())


def count_steps(database: Database, key: JobKey, name: str) -> int:
    """Count the steps of a job that have this name."""
    params = {"tenant": key.tenant, "job_id": key.job_id, "name": name}
    row = database.run(lambda own: own.execute(COUNT_STEPS, params).fetchone())
    return int(row[0]) if row else 0


def has_undelivered(database: Database, *, older_than: timedelta) -> bool:
    """Whether there is a job that no engine has accepted for so long."""
    row = database.run(lambda own: own.execute(HAS_UNDELIVERED, {"older_than": older_than}).fetchone())
    return bool(row and row[0])


def _fetch(database: Database, statement: LiteralString, params: dict[str, Any]) -> list[OpenJob]:
    def fetch(own: DriverConnection) -> list[OpenJob]:
        with psycopg.Cursor(own, row_factory=kwargs_row(_open_job)) as cursor:
            return cursor.execute(statement, params).fetchall()

    return database.run(fetch)


def _open_job(**columns: Any) -> OpenJob:
    # str: an adopted database has tenants of type uuid.
    key = JobKey(tenant=TenantId(str(columns.pop("tenant"))), job_id=columns.pop("job_id"))
    known = {
        "key": key,
        "status": JobStatus(columns["status"]),
        "runner_type": Engine.parse(columns["runner_type"]),
    }
    return OpenJob(**columns | known)


def _after(last: tuple[datetime, UUID]) -> dict[str, Any]:
    at, job_id = last
    return {"after_at": "-infinity" if at is datetime.min else at, "after_id": job_id}


def _names(engine: Engine) -> list[str]:
    return [engine.value, "pgboss"] if engine is Engine.CELERY else [engine.value]

"""Jobs that are open: what the reaper, the reconcilers and health checks look at, and what workers run now.

They have an index (decision 0017). Whoever pages through them reads all of them; whoever looks does so at no more than
`MOST` at either end of time, where something is amiss, or under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.keys import Engine, JobKey, TenantId, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows

_COLUMNS: LiteralString = """tenant, job_id, task_id, type, status, attempt, delivery, runner_type, external_id, broker,
    worker_number, worker, expires_at, created_at, updated_at"""

#: Open jobs that a look reads at either end of time: a second or two, if each is a page from the disk.
MOST = 150_000


def at_both_ends(columns: LiteralString) -> LiteralString:
    """The oldest and the newest open jobs, as a CTE `looked_at`; `%(most)s` of each.

    Args:
        columns: What is read of them; `created_at` and `job_id` are among it.
    """
    return f"""oldest AS MATERIALIZED (
    SELECT {columns} FROM public.jobs WHERE completed_at IS NULL ORDER BY created_at, job_id LIMIT %(most)s
), looked_at AS (
    SELECT {columns} FROM oldest
    UNION ALL
    (
        SELECT {columns} FROM public.jobs
        WHERE completed_at IS NULL AND (created_at, job_id) > (
            SELECT created_at, job_id FROM oldest ORDER BY created_at DESC, job_id DESC LIMIT 1
        )
        ORDER BY created_at DESC, job_id DESC
        LIMIT %(most)s
    )
)"""


#: What these workers had begun, after the last of the portion before.
OF_WORKERS: LiteralString = f"""
SELECT {_COLUMNS}
FROM public.jobs
WHERE completed_at IS NULL AND (created_at, job_id) > (%(after_at)s, %(after_id)s)
  AND status = 'processing' AND worker_number = ANY(%(numbers)s) AND runner_type = ANY(%(engines)s)
ORDER BY created_at, job_id
LIMIT %(limit)s
"""

#: What an engine has, by its row; the oldest first, after the last of the portion before. A job without a delivery
#: waits for others (a chain that took its place, its children), and nothing is to bring it on.
OPEN: LiteralString = f"""
SELECT {_COLUMNS}
FROM public.jobs
WHERE completed_at IS NULL AND (created_at, job_id) > (%(after_at)s, %(after_id)s)
  AND status IN ('queued', 'scheduled', 'retrying', 'waiting', 'processing')
  AND delivery IS NOT NULL
  AND runner_type = ANY(%(engines)s)
  AND updated_at < now() - %(older_than)s::interval
ORDER BY created_at, job_id
LIMIT %(limit)s
"""

#: What is said to be under way, for who looks whether it is. A job that waits for others was begun, and has neither
#: delivery nor worker; what was written by hand, or adopted, may have no delivery either, and belongs here.
UNDER_WAY: LiteralString = f"""
WITH {at_both_ends(_COLUMNS)}
SELECT {_COLUMNS}
FROM looked_at
WHERE status = ANY(%(statuses)s)
  AND (delivery IS NOT NULL OR worker IS NOT NULL OR attempt = 0)
  AND runner_type = ANY(%(engines)s)
ORDER BY updated_at
LIMIT %(limit)s
"""

_RUNNING_COLUMNS: LiteralString = "tenant, job_id, type, queue, worker_number, attempt, started_at, progress"

RUNNING: LiteralString = f"""
WITH {at_both_ends(f"{_RUNNING_COLUMNS}, status, created_at")}
SELECT {_RUNNING_COLUMNS}
FROM looked_at
WHERE status = 'processing' AND worker_number = ANY(%(numbers)s)
ORDER BY started_at
LIMIT %(limit)s
"""

#: Of these jobs, those that none of these workers has begun.
NOT_BEGUN: LiteralString = """
SELECT task_id
FROM public.jobs
WHERE job_id = ANY(%(job_ids)s)
  AND (
    status IN ('pending', 'queued', 'scheduled', 'retrying', 'waiting')
    OR status = 'processing' AND worker_number <> ALL(%(numbers)s)
  )
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
      AND status IN ('pending', 'retrying', 'queued', 'scheduled', 'waiting')
)
"""

#: Which queues were lately used, and with which engine.
RECENT_QUEUES: LiteralString = """
SELECT DISTINCT runner_type, queue
FROM (SELECT runner_type, queue FROM public.jobs ORDER BY created_at DESC, job_id DESC LIMIT 1000) AS newest
WHERE queue IS NOT NULL
"""

#: Of the same for a page, which nobody waits long for.
_MOST_OF_A_PAGE = 20_000

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
    database: Database, engine: Engine, *, statuses: Sequence[JobStatus], limit: int, most: int = MOST
) -> list[OpenJob]:
    """Give the jobs that an engine is said to have, those first to which nothing happened for the longest time.

    Args:
        database: Where they are.
        engine: Which.
        statuses: Open ones.
        limit: At most so many jobs.
        most: So many open jobs are looked at, at either end of time.
    """
    known = {"engines": _names(engine), "statuses": [status.value for status in statuses]}
    return _fetch(database, UNDER_WAY, known | {"limit": limit, "most": most})


def running_jobs(database: Database, numbers: Sequence[int], *, limit: int = 500) -> Sequence[RunningJob]:
    """Give the jobs that the workers of these numbers run, those first that began first."""
    params = {"numbers": list(numbers), "most": _MOST_OF_A_PAGE, "limit": limit}
    return database.run(lambda own: all_rows(own, RunningJob, RUNNING, params)) if numbers else []


def not_begun(database: Database, task_ids: Sequence[str], numbers: Sequence[int]) -> set[str]:
    """Tell which of these jobs the workers of these numbers have not begun."""
    named = {"job_ids": [job_id_for(each) for each in task_ids], "numbers": list(numbers)}
    return {task_id for (task_id,) in database.run(lambda own: own.execute(NOT_BEGUN, named).fetchall())}


def recent_queues(database: Database) -> set[tuple[str, str]]:
    """Name the engines and queues of the newest thousand jobs."""
    rows = database.run(lambda own: own.execute(RECENT_QUEUES).fetchall())
    return {(engine, queue) for engine, queue in rows}


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
    return database.run(lambda own: all_rows(own, _open_job, statement, params))


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

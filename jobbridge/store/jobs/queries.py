"""Questions about jobs. Nothing here changes a status: that is the recorder's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString, TypeVar
from uuid import UUID

from psycopg import sql

from jobbridge.codec.rows import open_delivery, open_result, opened, readable_detail, readable_job
from jobbridge.core.keys import Engine, JobKey, TenantId, job_id_for
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.store.database import CallersConnection, Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.jobs.rows import (
    FallenBackRow,
    JobDetailRow,
    JobRow,
    StoredDelivery,
    StoredResult,
    fallen_back_row,
    job_detail_row,
    job_row,
    stored_delivery,
    stored_result,
)
from jobbridge.store.values import as_jsonb

__all__ = [
    "FallenBackRow",
    "JobDetailRow",
    "JobFilter",
    "JobPage",
    "JobRow",
    "JobStore",
    "StoredDelivery",
    "StoredResult",
]

COLUMNS: LiteralString = """tenant, job_id, task_id, type, status, metadata, user_id, runner_type, external_id,
    external_run_id, queue, priority, run_at, expires_at, singleton_key, root_id, parent_id, group_id, delivery,
    attempt, max_attempts, worker, worker_number, progress, progress_message, result, error, traceback, cancelled_by,
    cancel_reason, created_at, updated_at, started_at, completed_at"""

DETAIL_COLUMNS: LiteralString = """detail_id, job_id, sequence, step_name, step_key, status, retry_count, result,
    metadata, error, traceback, created_at, updated_at, processed_at"""

_DELIVERY_COLUMNS: LiteralString = (
    "tenant, job_id, task_id, type, status, attempt, delivery, queue, run_at, message"
)

RESULT_COLUMNS: LiteralString = """tenant, job_id, task_id, status, attempt, result, result_payload, result_type,
    error, traceback, worker, started_at, completed_at,
    CASE WHEN status IN ('cancelled', 'expired', 'skipped') OR completed_at IS NULL AND attempt > 0
        THEN metadata ? 'ignore_result' ELSE false
    END AS is_ignored"""

GET: LiteralString = f"SELECT {COLUMNS} FROM public.jobs WHERE tenant = %(tenant)s AND job_id = %(job_id)s"

GET_SOME: LiteralString = (
    f"SELECT {COLUMNS} FROM public.jobs WHERE tenant = %(tenant)s AND job_id = ANY(%(job_ids)s)"
)

#: Until the transaction ends nobody else changes the row.
LOCK: LiteralString = "SELECT 1 FROM public.jobs WHERE tenant = %(tenant)s AND job_id = %(job_id)s FOR UPDATE"

#: Who has only a task id knows no tenant. Ids are uuids: two tenants share one only if somebody copied it.
FIND: LiteralString = f"""
SELECT {COLUMNS} FROM public.jobs WHERE job_id = %(job_id)s ORDER BY created_at DESC LIMIT 1
"""


#: Where the engine's id is the job's own, the key has it; an index has the others.
def _find_external(of: LiteralString) -> LiteralString:
    return f"""
SELECT {COLUMNS}
FROM (
    SELECT {COLUMNS} FROM public.jobs
    WHERE external_id = %(external_id)s AND external_id <> job_id::text{of}
    UNION ALL
    SELECT {COLUMNS} FROM public.jobs
    WHERE job_id = %(job_id)s AND external_id = %(external_id)s AND external_id = job_id::text{of}
) AS known
ORDER BY created_at DESC
LIMIT 1
"""


FIND_EXTERNAL: LiteralString = _find_external("")
FIND_EXTERNAL_OF_TENANT: LiteralString = _find_external(" AND tenant = %(tenant)s")

DETAILS: LiteralString = f"""
SELECT {DETAIL_COLUMNS} FROM public.job_details
WHERE tenant = %(tenant)s AND job_id = %(job_id)s
ORDER BY sequence
"""

#: Of one, which is planned once.
RESULT: LiteralString = f"SELECT {RESULT_COLUMNS} FROM public.jobs WHERE job_id = %(job_id)s"

RESULTS: LiteralString = f"SELECT {RESULT_COLUMNS} FROM public.jobs WHERE job_id = ANY(%(job_ids)s)"

ENDED: LiteralString = """
SELECT tenant, job_id FROM public.jobs WHERE job_id = ANY(%(job_ids)s) AND status = ANY(%(final)s)
"""

#: The job stays; only what it returned goes.
FORGET: LiteralString = """
UPDATE public.jobs
SET result = NULL, result_payload = NULL, result_type = 'hidden', updated_at = clock_timestamp()
WHERE job_id = %(job_id)s AND completed_at IS NOT NULL
"""

DELIVERY: LiteralString = f"""
SELECT {_DELIVERY_COLUMNS} FROM public.jobs WHERE tenant = %(tenant)s AND job_id = %(job_id)s
"""

#: Follows the partial index, oldest first. `relayed_at` keeps two relays, and the next sweep, from the same rows for a
#: while, without a lock that would outlast this statement: a started job must be able to claim its row at once.
TAKE_UNDELIVERED: LiteralString = """
UPDATE public.jobs AS job
SET relayed_at = clock_timestamp()
FROM (
    SELECT tenant, job_id
    FROM public.jobs
    WHERE undelivered_since <= now() - %(older_than)s::interval
      AND message IS NOT NULL
      AND status IN ('pending', 'retrying', 'queued', 'scheduled', 'waiting')
      AND (relayed_at IS NULL OR relayed_at <= now() - %(again_after)s::interval)
    ORDER BY undelivered_since
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) AS taken
WHERE job.tenant = taken.tenant AND job.job_id = taken.job_id
RETURNING job.tenant, job.job_id, job.task_id, job.type, job.status, job.attempt, job.delivery, job.queue, job.run_at,
    job.message
"""

#: Those which were delivered all the same are not taken again: their `undelivered_since` is gone.
GIVE_BACK_UNDELIVERED: LiteralString = """
UPDATE public.jobs
SET relayed_at = NULL
WHERE tenant = ANY(%(tenants)s) AND job_id = ANY(%(job_ids)s) AND undelivered_since IS NOT NULL
"""

COUNT_BY_STATUS: LiteralString = """
SELECT runner_type, status, count(*) FROM public.jobs GROUP BY runner_type, status ORDER BY runner_type, status
"""


#: Follows the partial index of such steps.
def _fallen_back(of: LiteralString) -> LiteralString:
    return f"""
SELECT job.tenant, job.job_id, job.type, job.status, step.created_at AS fell_back_at, step.metadata
FROM public.job_details AS step
JOIN public.jobs AS job ON job.tenant = step.tenant AND job.job_id = step.job_id
WHERE step.step_name = 'fallback' AND step.created_at > now() - %(within)s::interval AND {of}
ORDER BY step.created_at DESC
LIMIT %(limit)s
"""


FALLEN_BACK: LiteralString = _fallen_back("true")
FALLEN_BACK_OF_TENANT: LiteralString = _fallen_back("step.tenant = %(tenant)s")

#: What people and programs wrote about a job; nothing decides by it.
DESCRIBE: LiteralString = """
UPDATE public.jobs SET metadata = metadata || %(metadata)s, updated_at = clock_timestamp()
WHERE tenant = %(tenant)s AND job_id = %(job_id)s
RETURNING job_id
"""

#: Open jobs, and those that ended otherwise than well, each as an index has them (decision 0017).
ARE_OPEN: LiteralString = "completed_at IS NULL"
_ARE_UNSUCCESSFUL: dict[JobStatus, LiteralString] = {
    JobStatus.FAILED: "unsuccessful = 'failed'",
    JobStatus.CANCELLED: "unsuccessful = 'cancelled'",
    JobStatus.EXPIRED: "unsuccessful = 'expired'",
    JobStatus.SKIPPED: "unsuccessful = 'skipped'",
}

_CLAUSES: dict[str, LiteralString] = {
    "tenant": "tenant = %(tenant)s",
    "statuses": "status = ANY(%(statuses)s)",
    "type": "type = %(type)s",
    "engines": "runner_type = ANY(%(engines)s)",
    "queue": "queue = %(queue)s",
    "before": "(created_at, job_id) < (%(before_at)s, %(before_id)s)",
}

_Row = TypeVar("_Row")


def rare_ones(statuses: Collection[JobStatus] | None) -> list[LiteralString]:
    """Give conditions that an index has, and that together have all jobs of these statuses; none: it has to be all."""
    if statuses is None or JobStatus.COMPLETED in statuses:
        return []
    conditions = [condition for status, condition in _ARE_UNSUCCESSFUL.items() if status in statuses]
    return conditions if FINAL.issuperset(statuses) else [ARE_OPEN, *conditions]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFilter:
    """Which jobs; what is None does not matter."""

    tenant: TenantId | None = None
    statuses: Sequence[JobStatus] | None = None
    type: str | None = None
    engine: Engine | None = None
    queue: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPage:
    """Some jobs, newest first.

    Attributes:
        next: Pass it as `before` for the page after this one; None: this is the last.
    """

    jobs: Sequence[JobRow]
    next: tuple[datetime, UUID] | None


class JobStore:
    """Reads jobs and their steps."""

    def __init__(self, database: Database) -> None:
        self._database, codec = database, database.codec
        self._job, self._detail = (
            opened(codec, job_row, readable_job),
            opened(codec, job_detail_row, readable_detail),
        )
        self._result = opened(codec, stored_result, open_result)
        self._delivery = opened(codec, stored_delivery, open_delivery)

    def get(self, key: JobKey, connection: CallersConnection | None = None) -> JobRow | None:
        """Give the job of that tenant and id."""
        return _first(self._fetch(self._job, GET, _key(key), connection))

    def some(self, tenant: TenantId, job_ids: Sequence[UUID]) -> dict[UUID, JobRow]:
        """Give those of these jobs of a tenant that there are, by their ids."""
        rows = self._fetch(self._job, GET_SOME, {"tenant": tenant, "job_ids": list(job_ids)})
        return {row.job_id: row for row in rows}

    def lock(self, key: JobKey, connection: CallersConnection) -> None:
        """Hold a job's row until the caller's transaction ends."""
        with self._database.transaction(connection) as own:
            own.execute(LOCK, _key(key))

    def find(self, job_id: UUID, connection: CallersConnection | None = None) -> JobRow | None:
        """Give the job of that id, whoever's it is."""
        return _first(self._fetch(self._job, FIND, {"job_id": job_id}, connection))

    def find_external(self, external_id: str, tenant: TenantId | None = None) -> JobRow | None:
        """Give the newest job that its engine knows by that id; if a tenant is named, of that one's."""
        statement = FIND_EXTERNAL if tenant is None else FIND_EXTERNAL_OF_TENANT
        known = {"external_id": external_id, "job_id": job_id_for(external_id), "tenant": tenant}
        return _first(self._fetch(self._job, statement, known))

    def page(
        self, where: JobFilter | None = None, *, before: tuple[datetime, UUID] | None = None, limit: int = 50
    ) -> JobPage:
        """Give one page of jobs, newest first.

        Args:
            where: Which; all if None.
            before: The `next` of the page before.
            limit: At most so many.
        """
        where = where or JobFilter()
        values: dict[str, Any] = {
            "tenant": where.tenant,
            "statuses": None if where.statuses is None else [status.value for status in where.statuses],
            "type": where.type,
            "engines": _names(where.engine),
            "queue": where.queue,
            "before": before,
        }
        used = [sql.SQL(clause) for name, clause in _CLAUSES.items() if values[name] is not None]
        rare = rare_ones(where.statuses)
        used += map(sql.SQL, rare if len(rare) == 1 else ())
        statement = sql.SQL(
            "SELECT {columns} FROM public.jobs{where} ORDER BY created_at DESC, job_id DESC LIMIT %(limit)s"
        ).format(
            columns=sql.SQL(COLUMNS),
            where=sql.SQL(" WHERE ") + sql.SQL(" AND ").join(used) if used else sql.SQL(""),
        )
        at, job_id = before or (None, None)
        rows = self._fetch(
            job_row, statement, values | {"before_at": at, "before_id": job_id, "limit": limit + 1}
        )
        page = rows[:limit]
        return JobPage(jobs=page, next=(page[-1].created_at, page[-1].job_id) if len(rows) > limit else None)

    def details(self, key: JobKey) -> Sequence[JobDetailRow]:
        """Give the steps of a job in the order in which they began."""
        return self._fetch(self._detail, DETAILS, _key(key))

    def describe(self, key: JobKey, metadata: Mapping[str, Any]) -> bool:
        """Add to a job's metadata; false when there is no such job."""
        params = _key(key) | {"metadata": as_jsonb(dict(metadata))}
        return self._database.run(lambda own: own.execute(DESCRIBE, params).fetchone()) is not None

    def fallen_back(
        self, *, within: timedelta = timedelta(days=1), limit: int = 100, tenant: TenantId | None = None
    ) -> Sequence[FallenBackRow]:
        """Give the jobs (of a tenant) that another engine took than theirs, newest first."""
        statement = FALLEN_BACK if tenant is None else FALLEN_BACK_OF_TENANT
        params = {"within": within, "limit": limit, "tenant": tenant}
        return self._fetch(fallen_back_row, statement, params)

    def count_by_status(self) -> dict[tuple[Engine, JobStatus], int]:
        """Count all jobs. Reads the whole table."""
        counts: dict[tuple[Engine, JobStatus], int] = {}
        for engine, status, count in self._database.run(lambda own: own.execute(COUNT_BY_STATUS).fetchall()):
            known = (Engine.parse(engine), JobStatus(status))
            counts[known] = counts.get(known, 0) + count
        return counts

    # -- for the result backend

    def results_of(self, job_ids: Sequence[UUID]) -> Sequence[StoredResult]:
        """Give what is known of these jobs' results, in any order; unknown ids are left out."""
        if len(job_ids) == 1:
            return self._fetch(self._result, RESULT, {"job_id": job_ids[0]})
        return self._fetch(self._result, RESULTS, {"job_ids": list(job_ids)})

    def ended_among(self, keys: Collection[JobKey]) -> set[JobKey]:
        """Tell which of these jobs have ended."""
        params = {"job_ids": [key.job_id for key in keys], "final": sorted(FINAL)}
        rows = self._database.run(lambda own: own.execute(ENDED, params).fetchall())
        return {JobKey(tenant=TenantId(str(tenant)), job_id=job_id) for tenant, job_id in rows} & set(keys)

    def forget_result(self, job_id: UUID) -> None:
        """Drop the result of a job that has ended."""
        self._database.run(lambda own: own.execute(FORGET, {"job_id": job_id}))

    # -- for those who deliver

    def delivery_of(self, key: JobKey, connection: CallersConnection | None = None) -> StoredDelivery | None:
        """Give the message by which the job runs, or goes on."""
        return _first(self._fetch(self._delivery, DELIVERY, _key(key), connection))

    def take_undelivered(
        self,
        *,
        limit: int = 100,
        older_than: timedelta = timedelta(seconds=2),
        again_after: timedelta = timedelta(seconds=30),
    ) -> Sequence[StoredDelivery]:
        """Take jobs whose message no engine has accepted yet, for another try; oldest first.

        The taker delivers them and records Accepted; if it dies, they are there again.

        Args:
            limit: At most so many.
            older_than: Leave younger ones to the caller who just recorded them. Zero when notified of them.
            again_after: Leave those which were taken less than this ago.
        """
        params = {"limit": limit, "older_than": older_than, "again_after": again_after}
        return self._fetch(stored_delivery, TAKE_UNDELIVERED, params)

    def give_back_undelivered(self, keys: Sequence[JobKey]) -> None:
        """Let the next taker have these jobs at once: their engine is away, and nobody tries them now."""
        params = {
            "tenants": list({key.tenant for key in keys}),
            "job_ids": [key.job_id for key in keys],
        }
        self._database.run(lambda own: own.execute(GIVE_BACK_UNDELIVERED, params))

    def _fetch(
        self,
        make: Callable[..., _Row],
        statement: LiteralString | sql.Composed,
        params: dict[str, Any],
        connection: CallersConnection | None = None,
    ) -> list[_Row]:
        if connection is not None:
            return all_rows(self._database.beneath(connection), make, statement, params)
        return self._database.run(lambda own: all_rows(own, make, statement, params))


def _key(key: JobKey) -> dict[str, Any]:
    return {"tenant": key.tenant, "job_id": key.job_id}


def _names(engine: Engine | None) -> list[str] | None:
    if engine is None:
        return None
    return [engine.value, "pgboss"] if engine is Engine.CELERY else [engine.value]


def _first(rows: list[_Row]) -> _Row | None:
    return rows[0] if rows else None

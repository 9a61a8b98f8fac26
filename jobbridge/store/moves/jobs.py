"""Jobs that are to go to another engine: which wait, and which went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.fetch import all_rows, tuples
from jobbridge.store.jobs.steps import MOVED
from jobbridge.store.statuses import WAITING_STATUSES

#: Where a page begins that is the first.
FIRST = (datetime.min, UUID(int=0))

_COLUMNS: LiteralString = """tenant, job_id, task_id, type, status, attempt, delivery, external_id, external_run_id,
    queue, priority, broker, message, created_at"""

_CHOSEN: LiteralString = """completed_at IS NULL AND runner_type = ANY(%(engines)s)
  AND (tenant = %(tenant)s OR %(tenant)s IS NULL)
  AND (%(pattern)s::text IS NULL OR type ~ %(pattern)s::text)"""

#: Nobody is waited for: what another transaction holds is on its way somewhere, and is looked at again.
TAKE: LiteralString = f"""
SELECT {_COLUMNS}
FROM public.jobs
WHERE {_CHOSEN} AND status IN ({WAITING_STATUSES}) AND delivery IS NOT NULL AND broker IS NULL
  AND created_at <= %(before)s AND (created_at, job_id) > (%(after_at)s, %(after_id)s)
ORDER BY created_at, job_id
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

LOOK: LiteralString = f"""
SELECT {_COLUMNS}
FROM public.jobs
WHERE {_CHOSEN} AND status IN ({WAITING_STATUSES}) AND delivery IS NOT NULL AND broker IS NULL
  AND (created_at, job_id) > (%(after_at)s, %(after_id)s)
ORDER BY created_at, job_id
LIMIT %(limit)s
"""

#: A job without a delivery waits for others: for its children, or for the chain that took its place.
COUNTS: LiteralString = f"""
SELECT
    CASE WHEN delivery IS NULL AND attempt > 0 THEN 'waits for others'
         WHEN broker IS NOT NULL THEN 'on another broker'
         ELSE status END,
    count(*)
FROM public.jobs
WHERE {_CHOSEN}
GROUP BY 1
ORDER BY 1
"""

KINDS: LiteralString = f"""
SELECT type, queue, array_agg(DISTINCT priority), count(*)
FROM public.jobs
WHERE {_CHOSEN} AND status IN ({WAITING_STATUSES})
GROUP BY type, queue
ORDER BY type, queue
"""

#: What has gone to Celery from these workflows, and by what they are known.
FORMER: LiteralString = f"""
SELECT job.task_id, job.external_id, step.metadata
FROM public.jobs AS job
JOIN public.job_details AS step ON step.tenant = job.tenant AND step.job_id = job.job_id
WHERE (job.job_id = ANY(%(job_ids)s) OR job.external_id = ANY(%(ids)s) AND job.external_id <> job.job_id::text)
  AND job.runner_type <> 'temporal' AND step.step_name = '{MOVED}'
ORDER BY step.sequence
"""

COUNT_PARTS: LiteralString = "SELECT count(*) FROM public.jobs WHERE chord_id = %(chord_id)s"

STATE_OF: LiteralString = """
SELECT tenant, job_id, task_id, status, delivery, runner_type, broker, attempt
FROM public.jobs
WHERE job_id = ANY(%(job_ids)s)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class MovableJob:
    """A job that waits.

    Attributes:
        message: Of a job of Temporal: its message, as the row has it.
    """

    key: JobKey
    task_id: str
    type: str
    status: JobStatus
    attempt: int
    delivery: UUID
    external_id: str | None
    external_run_id: str | None
    queue: str
    priority: int
    message: Any
    created_at: datetime

    @property
    def place(self) -> tuple[datetime, UUID]:
        """Where the next page begins."""
        return (self.created_at, self.key.job_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which jobs are meant.

    Attributes:
        engine: Where they are.
        pattern: A regular expression of Postgres for the names of their tasks; None: all.
    """

    engine: Engine
    pattern: str | None = None
    tenant: str | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        names = [self.engine.value, "pgboss"] if self.engine is Engine.CELERY else [self.engine.value]
        return {"engines": names, "pattern": self.pattern, "tenant": self.tenant}


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownJob:
    """What a row says of a job that a message names."""

    key: JobKey
    task_id: str
    status: JobStatus
    delivery: UUID | None
    engine: Engine
    broker: str | None
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JobKind:
    """Waiting jobs of one task and queue."""

    type: str
    queue: str
    priorities: Sequence[int]
    count: int


def take(
    connection: DriverConnection,
    selection: Selection,
    *,
    before: datetime,
    after: tuple[datetime, UUID],
    limit: int,
) -> list[MovableJob]:
    """Lock waiting jobs of that selection, made until `before`; the oldest first, after the last of the page before."""
    params = selection.parameters | _after(after) | {"before": before, "limit": limit}
    return all_rows(connection, _movable, TAKE, params)


def look(
    connection: DriverConnection, selection: Selection, *, after: tuple[datetime, UUID], limit: int
) -> list[MovableJob]:
    """Give waiting jobs as `take` does, and lock none."""
    return all_rows(connection, _movable, LOOK, selection.parameters | _after(after) | {"limit": limit})


def counts(connection: DriverConnection, selection: Selection) -> dict[str, int]:
    """Count the open jobs of a selection by status; those that wait for others, or are elsewhere, by that."""
    return dict(tuples(connection, COUNTS, selection.parameters))


def kinds(connection: DriverConnection, selection: Selection) -> list[JobKind]:
    """Give the tasks and queues of the waiting jobs."""
    rows = tuples(connection, KINDS, selection.parameters)
    return [
        JobKind(type=name, queue=queue or "", priorities=priorities, count=count)
        for name, queue, priorities, count in rows
    ]


def former(
    connection: DriverConnection, external_ids: Sequence[str], job_ids: Sequence[UUID]
) -> list[tuple[str, str | None, Any]]:
    """Give task id, external id and the note of their move of jobs that went from these workflows to Celery."""
    return tuples(connection, FORMER, {"ids": list(external_ids), "job_ids": list(job_ids)})


def count_parts(connection: DriverConnection, chord_id: str) -> int:
    """Count the jobs that are a chord's parts, or lead to one."""
    [(count,)] = tuples(connection, COUNT_PARTS, {"chord_id": chord_id})
    return int(count)


def known(connection: DriverConnection, job_ids: Sequence[UUID]) -> dict[str, KnownJob]:
    """Give the jobs of these ids that have a row, by task id."""
    found = {}
    for tenant, job_id, task_id, status, delivery, engine, broker, attempt in tuples(
        connection, STATE_OF, {"job_ids": list(job_ids)}
    ):
        found[task_id] = KnownJob(
            key=JobKey(tenant=TenantId(str(tenant)), job_id=job_id),
            task_id=task_id,
            status=JobStatus(status),
            delivery=delivery,
            engine=Engine.parse(engine),
            broker=broker,
            attempt=attempt,
        )
    return found


def _movable(**columns: Any) -> MovableJob:
    # str: an adopted database has tenants of type uuid.
    key = JobKey(tenant=TenantId(str(columns.pop("tenant"))), job_id=columns.pop("job_id"))
    message = columns.pop("message")
    columns.pop("broker")
    return MovableJob(
        key=key,
        message=None if message is None else json.loads(message),
        **columns | {"status": JobStatus(columns["status"]), "queue": columns["queue"] or ""},
    )


def _after(last: tuple[datetime, UUID]) -> dict[str, Any]:
    at, job_id = last
    return {"after_at": "-infinity" if at is datetime.min else at, "after_id": job_id}

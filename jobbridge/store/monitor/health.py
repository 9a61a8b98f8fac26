"""What a health check asks of `jobs`. The status has no index; the counts lead to rare ones (see `cells`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

import psycopg
from psycopg.rows import kwargs_row

from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.store.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.jobs.cells import CELLS, IN_CELL, IS_CUT, MOST_JOBS, bounds

#: What is due and has not started. Where such jobs are everywhere, some of them (see `cells`).
WAITING: LiteralString = f"""
WITH {CELLS}
SELECT runner_type AS engine, status, coalesce(queue, '') AS queue, type AS task, count(*) AS count,
    min(updated_at) AS since, {IS_CUT} AS is_cut
FROM cell CROSS JOIN LATERAL (
    SELECT runner_type, status, queue, type, updated_at FROM (
        SELECT runner_type, status, queue, type, updated_at, run_at FROM public.jobs
        WHERE {IN_CELL}
    ) AS read
    WHERE status IN ('pending', 'queued') OR (status IN ('scheduled', 'retrying') AND run_at < now())
    OFFSET 0
) AS job
GROUP BY 1, 2, 3, 4
ORDER BY since
"""
_STATUSES = [
    status.value for status in (JobStatus.PENDING, JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.RETRYING)
]

#: What workers refused lately because they do not know the task; by time, which has an index. Celery's own consumer
#: calls it NotRegistered; what a worker knows and failed so was about another task, so the names are compared, too.
UNKNOWN_TASKS: LiteralString = """
SELECT task, count(*), max(completed_at) FROM (
    SELECT type AS task, status, error, completed_at
    FROM public.jobs
    WHERE created_at > now() - %(within)s::interval
    ORDER BY created_at DESC
    LIMIT 100000
) AS recent
WHERE status = 'failed' AND error ~ '^(NotRegistered: |UnknownHandler: |No (task|handler) is registered under )'
GROUP BY task
ORDER BY task
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingGroup:
    """Jobs of one task that are due and wait in one queue, and since when the longest.

    Attributes:
        is_cut: There may be more: not all jobs were looked at.
    """

    engine: Engine
    status: JobStatus
    queue: str
    task: str
    count: int
    since: datetime
    is_cut: bool = False

    @property
    def number(self) -> str:
        """How many they are, as far as that is known."""
        return f"at least {self.count}" if self.is_cut else str(self.count)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnknownTask:
    """A task that a worker was sent and does not know."""

    task: str
    count: int
    last_at: datetime


class HealthStore:
    """Questions of a health check.

    Args:
        database: Whose jobs.
        jobs: How many of them one question reads at most.
    """

    def __init__(self, database: Database, *, jobs: int = MOST_JOBS) -> None:
        self._database = database
        self._bounds = bounds(jobs=jobs)

    def waiting(self) -> Sequence[WaitingGroup]:
        """Count the jobs that are due and have not started."""

        def fetch(own: DriverConnection) -> list[WaitingGroup]:
            with psycopg.Cursor(own, row_factory=kwargs_row(_waiting_group)) as cursor:
                return cursor.execute(
                    WAITING, {"statuses": _STATUSES} | self._bounds, prepare=False
                ).fetchall()

        return self._database.run(fetch)

    def unknown_tasks(self, *, within: timedelta) -> Sequence[UnknownTask]:
        """Count the jobs that were made within that time and failed since their worker does not know the task."""
        rows = self._database.run(lambda own: own.execute(UNKNOWN_TASKS, {"within": within}).fetchall())
        return [UnknownTask(task=task, count=count, last_at=last_at) for task, count, last_at in rows]


def _waiting_group(*, engine: str, status: str, **columns: object) -> WaitingGroup:
    return WaitingGroup(engine=Engine.parse(engine), status=JobStatus(status), **columns)  # type: ignore[arg-type]

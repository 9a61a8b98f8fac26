"""What a health check asks of `jobs`: what waits, and what failed since nobody knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.jobs.open_jobs import MOST, at_both_ends

#: What is due and has not started. Where too many jobs are open, some of them (see `open_jobs`).
WAITING: LiteralString = f"""
WITH {at_both_ends("runner_type, status, queue, type, updated_at, run_at, created_at, job_id, tenant")}
SELECT runner_type AS engine, status, coalesce(queue, '') AS queue, type AS task, count(*) AS count,
    min(updated_at) AS since, (SELECT count(*) FROM looked_at) >= 2 * %(most)s AS is_cut
FROM looked_at
WHERE status IN ('pending', 'queued') OR (status IN ('scheduled', 'retrying', 'waiting') AND run_at < now())
GROUP BY 1, 2, 3, 4
ORDER BY since
"""

#: What workers refused lately because they do not know the task. Celery's own consumer calls it NotRegistered; what a
#: worker knows and failed so was about another task, so the names are compared, too.
UNKNOWN_TASKS: LiteralString = """
SELECT task, count(*), max(completed_at) FROM (
    SELECT type AS task, error, completed_at
    FROM public.jobs
    WHERE unsuccessful = 'failed' AND completed_at > now() - %(within)s::interval
    ORDER BY completed_at DESC
    LIMIT 100000
) AS recent
WHERE error ~ '^(NotRegistered: |UnknownHandler: |No (task|handler) is registered under )'
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
        most: How many open ones a look reads at either end of time.
    """

    def __init__(self, database: Database, *, most: int = MOST) -> None:
        self._database = database
        self._most = most

    def waiting(self) -> Sequence[WaitingGroup]:
        """Count the jobs that are due and have not started."""
        params = {"most": self._most}
        return self._database.run(lambda own: all_rows(own, _waiting_group, WAITING, params))

    def unknown_tasks(self, *, within: timedelta) -> Sequence[UnknownTask]:
        """Count the jobs that failed within that time since their worker does not know the task."""
        rows = self._database.run(lambda own: own.execute(UNKNOWN_TASKS, {"within": within}).fetchall())
        return [UnknownTask(task=task, count=count, last_at=last_at) for task, count, last_at in rows]


def _waiting_group(*, engine: str, status: str, **columns: object) -> WaitingGroup:
    return WaitingGroup(engine=Engine.parse(engine), status=JobStatus(status), **columns)  # type: ignore[arg-type]

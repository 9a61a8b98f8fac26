"""What ended of one queue, by the hour: of the newest jobs of all queues, since none has an index by its queue.

So the numbers are exact where the newest jobs reach back to the beginning of the time that is asked for, and those of
a sample where they do not; `QueueHistory.reached_to` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

from jobbridge.store.database import Database

#: Jobs of all queues that one look reads: some 20 ms, if they are in memory.
MOST = 10_000

#: The wait is from the moment when a job was sent and due to its first start; a retry's instant in `run_at` is no due
#: time of that start. The row without an hour is of all hours together, and is always there.
ENDED_BY_HOUR: LiteralString = """
WITH newest AS MATERIALIZED (
    SELECT queue, status, created_at, run_at, started_at, completed_at
    FROM public.jobs
    ORDER BY created_at DESC, job_id DESC
    LIMIT %(most)s
), ended AS (
    SELECT date_trunc('hour', completed_at, 'UTC') AS hour, status,
        CASE WHEN started_at IS NOT NULL THEN greatest(
            started_at - CASE WHEN run_at <= started_at THEN greatest(created_at, run_at) ELSE created_at END,
            interval '0'
        ) END AS wait
    FROM newest
    WHERE queue = %(queue)s AND completed_at >= %(since)s
)
SELECT hour, count(*), count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY wait) FILTER (WHERE wait IS NOT NULL),
    percentile_cont(0.95) WITHIN GROUP (ORDER BY wait) FILTER (WHERE wait IS NOT NULL),
    (SELECT CASE WHEN count(*) >= %(most)s THEN min(created_at) END FROM newest)
FROM ended
GROUP BY GROUPING SETS ((hour), ())
ORDER BY hour NULLS LAST
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedJobs:
    """Jobs of a queue that ended within some time.

    Attributes:
        ended: All of them; those that neither completed nor failed were cancelled, expired or skipped.
        wait_p50, wait_p95: Of those that had started; None: none had.
    """

    ended: int
    completed: int
    failed: int
    wait_p50: timedelta | None
    wait_p95: timedelta | None

    @property
    def other(self) -> int:
        return self.ended - self.completed - self.failed


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueHistory:
    """What ended of a queue.

    Attributes:
        hours: By the beginning of the hour, in UTC, oldest first; hours without any are left out.
        reached_to: Jobs that were created before then were not looked at; None: all were.
    """

    hours: Sequence[tuple[datetime, EndedJobs]]
    total: EndedJobs
    reached_to: datetime | None


def queue_history(database: Database, queue: str, *, since: datetime, most: int = MOST) -> QueueHistory:
    """Give what ended of a queue since then.

    Args:
        database: Where the jobs are.
        queue: Its name.
        since: The beginning of an hour.
        most: So many of the newest jobs of all queues are looked at.
    """
    params = {"queue": queue, "since": since, "most": most}
    rows: list[tuple[Any, ...]] = database.run(lambda own: own.execute(ENDED_BY_HOUR, params).fetchall())
    *hours, (_, *total, reached_to) = rows
    return QueueHistory(
        hours=[(hour, _ended(*numbers)) for hour, *numbers, _ in hours],
        total=_ended(*total),
        reached_to=reached_to,
    )


def _ended(
    ended: int, completed: int, failed: int, p50: timedelta | None, p95: timedelta | None
) -> EndedJobs:
    return EndedJobs(ended=ended, completed=completed, failed=failed, wait_p50=p50, wait_p95=p95)

"""What started and ended in each hour, how long it had waited, and how long it took: exact, and without reading jobs.

The trigger that counts jobs (see `counts`) also says when a job starts for the first time and when it ends, with the
time that passed. `fold` adds that to cells: hours and days of a tenant, the same of all tenants, and one `ever`. As
there, what was not folded yet is added by whoever asks.

What is counted are events, not rows: a job that is sent again after its end ends twice, and a job that is deleted has
ended all the same. So these numbers only grow, but for what is past its time (`prune`).

- Waited: from the moment when it was sent and due, to its first start. Of a job that is sent again to Temporal before
  it ever started (it was cancelled, skipped, or its time was over) that begins with its creation.
- Ran: from its first start to its end, with all attempts and the pauses between them. One that never started has none.

Times are in buckets whose bounds grow by the square root of two: a quantile is wrong by a fifth at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, LiteralString

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.store.database import Database

#: Upper bounds of the buckets but the last, each included, in milliseconds: 1 ms to 12 days.
BOUNDS: Sequence[int] = sorted({round(2 ** (half / 2)) for half in range(61)})

#: Hours and days are kept for so long. A page shows a week by the hour at most.
HOURS_KEPT = timedelta(days=8)
DAYS_KEPT = timedelta(days=90)
DAYS_SHOWN = timedelta(days=31)

#: The status by which cells tell of starts.
STARTED = JobStatus.PROCESSING

FLOW_COLUMNS: LiteralString = "flow_hour, flow_ms"

# PREPARE and plans know it as a constant.
_BOUNDS: LiteralString = (
    "'{"
    "1,2,3,4,6,8,11,16,23,32,45,64,91,128,181,256,362,512,724,1024,1448,2048,2896,4096,5793,8192,11585,16384,23170,"
    "32768,46341,65536,92682,131072,185364,262144,370728,524288,741455,1048576,1482910,2097152,2965821,4194304,5931642,"
    "8388608,11863283,16777216,23726566,33554432,47453133,67108864,94906266,134217728,189812531,268435456,379625062,"
    "536870912,759250125,1073741824}'::bigint[]"
)
#: Of `flow_ms`.
BUCKET: LiteralString = (
    f"CASE WHEN flow_ms IS NULL THEN -1 ELSE width_bucket(flow_ms - 1, {_BOUNDS}) END::smallint"
)
MILLISECONDS: LiteralString = "coalesce(greatest(flow_ms, 0), 0)"

#: Of `counts.FOLD`, which has taken the changes. In the order of their keys, as there.
ADD_FLOW: LiteralString = f"""happened AS MATERIALIZED (
    SELECT tenant, flow_hour, engine, status, {BUCKET} AS bucket, count(*) AS jobs, sum({MILLISECONDS}) AS ms
    FROM taken
    WHERE flow_hour IS NOT NULL AND status IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5
), spans AS MATERIALIZED (
    SELECT tenant, span, CASE span WHEN 'hour' THEN flow_hour ELSE date_trunc('day', flow_hour, 'UTC') END AS at,
        engine, status, bucket, sum(jobs) AS jobs, sum(ms) AS ms
    FROM happened CROSS JOIN (VALUES ('hour'), ('day')) AS known (span)
    GROUP BY 1, 2, 3, 4, 5, 6
), flow AS (
    INSERT INTO public.job_flow AS cell (tenant, span, at, engine, status, bucket, jobs, ms)
    SELECT tenant, span, at, engine, status, bucket, jobs, ms FROM spans ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT ON CONSTRAINT job_flow_pkey
    DO UPDATE SET jobs = cell.jobs + excluded.jobs, ms = cell.ms + excluded.ms
), flow_totals AS (
    INSERT INTO public.job_flow_totals AS cell (span, at, engine, status, bucket, jobs, ms)
    SELECT span, at, engine, status, bucket, sum(jobs), sum(ms)
    FROM (
        SELECT span, at, engine, status, bucket, jobs, ms FROM spans
        UNION ALL
        SELECT 'ever', '2000-01-01 00:00Z', engine, status, bucket, jobs, ms FROM spans WHERE span = 'day'
    ) AS each
    GROUP BY 1, 2, 3, 4, 5
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT ON CONSTRAINT job_flow_totals_pkey
    DO UPDATE SET jobs = cell.jobs + excluded.jobs, ms = cell.ms + excluded.ms
)"""


def _cells(table: LiteralString, of: LiteralString) -> LiteralString:
    return f"""
SELECT at, engine, status, bucket, sum(jobs)::bigint, sum(ms)::bigint
FROM (
    SELECT at, engine, status, bucket, jobs, ms FROM {table}
    WHERE span = %(span)s AND at >= %(since)s AND {of}
    UNION ALL
    SELECT date_trunc(%(span)s, flow_hour, 'UTC'), engine, status, {BUCKET}, 1, {MILLISECONDS}
    FROM public.job_count_changes
    WHERE flow_hour >= %(since)s AND status IS NOT NULL AND {of}
) AS each
GROUP BY at, engine, status, bucket
ORDER BY at, engine, status, bucket
"""


# No cast of the parameter: a tenant is text in some databases and a uuid in others.
CELLS: LiteralString = _cells("public.job_flow_totals", "true")
CELLS_OF_TENANT: LiteralString = _cells("public.job_flow", "tenant = %(tenant)s")

EVER: LiteralString = f"""
SELECT engine, status, bucket, sum(jobs)::bigint, sum(ms)::bigint
FROM (
    SELECT engine, status, bucket, jobs, ms FROM public.job_flow_totals WHERE span = 'ever'
    UNION ALL
    SELECT engine, status, {BUCKET}, 1, {MILLISECONDS}
    FROM public.job_count_changes
    WHERE flow_hour IS NOT NULL AND status IS NOT NULL
) AS each
GROUP BY engine, status, bucket
ORDER BY engine, status, bucket
"""


def _recorded_since(of: LiteralString) -> LiteralString:
    return f"""
SELECT first.at
FROM (SELECT min(at) AS at FROM public.job_flow_totals WHERE span = 'day') AS first
WHERE EXISTS (SELECT FROM public.jobs WHERE created_at < first.at AND {of})
"""


#: Of a database that had jobs before it had this.
RECORDED_SINCE: LiteralString = _recorded_since("true")
RECORDED_SINCE_OF_TENANT: LiteralString = _recorded_since("tenant = %(tenant)s")

#: Days in the totals are few, and stay.
PRUNE: LiteralString = """
DELETE FROM public.job_flow
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM public.job_flow
    WHERE span = %(span)s AND at < now() - %(kept)s::interval
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""

PRUNE_TOTALS: LiteralString = """
DELETE FROM public.job_flow_totals WHERE span = 'hour' AND at < now() - %(kept)s::interval
"""


class Span(StrEnum):
    """How long one cell is. Days are those of UTC."""

    HOUR = "hour"
    DAY = "day"

    @property
    def length(self) -> timedelta:
        return timedelta(hours=1) if self is Span.HOUR else timedelta(days=1)

    def begin(self, at: datetime) -> datetime:
        """Give the beginning of the hour or day of an instant in UTC."""
        day = at.replace(minute=0, second=0, microsecond=0)
        return day if self is Span.HOUR else day.replace(hour=0)


@dataclass(frozen=True, slots=True)
class Times:
    """Lengths of time of some jobs.

    Attributes:
        buckets: Bucket → jobs; see `BOUNDS`.
        total: Of all of them together.
    """

    buckets: Mapping[int, int]
    total: timedelta

    @property
    def jobs(self) -> int:
        return sum(self.buckets.values())

    def quantile(self, share: float) -> timedelta | None:
        """Give the time that this share of the jobs did not exceed, by interpolation; None: there are none."""
        left = share * self.jobs
        for bucket, jobs in sorted(self.buckets.items()):
            if jobs and left <= jobs:
                below, above = _edges(bucket)
                return timedelta(milliseconds=below + (above - below) * left / jobs)
            left -= jobs
        return None

    def up_to(self) -> list[tuple[float, int]]:
        """Give, for each bound in seconds, how many jobs did not exceed it: the histogram of Prometheus.

        The last bound is infinity.
        """
        seen, told = 0, []
        for bucket, bound in enumerate([*BOUNDS, float("inf")]):
            seen += self.buckets.get(bucket, 0)
            told.append((bound / 1000, seen))
        return told


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What happened in an hour or a day, of one engine.

    Attributes:
        status: `STARTED`, and the times are how long they had waited; or a final one, and they are how long they took.
        jobs: All of them, also those whose time is not known.
    """

    at: datetime
    engine: Engine
    status: JobStatus
    jobs: int
    times: Times


class FlowStore:
    """Reads what started and ended.

    Args:
        database: Where the tables are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def cells(self, span: Span, *, since: datetime, tenant: TenantId | None = None) -> list[Cell]:
        """Give the cells that begin then or later, oldest first; those without any job are left out.

        Args:
            span: Hours (kept for `HOURS_KEPT`) or days (`DAYS_KEPT`).
            since: At the beginning of one, in UTC.
            tenant: Whose; None: of all together.
        """
        statement = CELLS if tenant is None else CELLS_OF_TENANT
        params = {"span": span.value, "since": since, "tenant": tenant}
        nothing: list[tuple[Any, ...]] = []
        rows = self._database.ask(lambda own: own.execute(statement, params).fetchall(), otherwise=nothing)
        return _cells_of(rows)

    def totals(self) -> list[Cell]:
        """Give what ever started and ended on this installation, by engine and status; `at` has no meaning.

        These only grow: neither pruning nor purging takes anything away. They begin with the migration that made
        the tables.
        """
        rows = self._database.run(lambda own: own.execute(EVER).fetchall())
        return _cells_of((datetime.min, *row) for row in rows)

    def recorded_since(self, tenant: TenantId | None = None) -> datetime | None:
        """Give the day of the first start or end that is recorded; None: there are no (such) jobs from before it."""
        statement = RECORDED_SINCE if tenant is None else RECORDED_SINCE_OF_TENANT
        nothing: tuple[datetime] | None = None
        row = self._database.ask(
            lambda own: own.execute(statement, {"tenant": tenant}).fetchone(), otherwise=nothing
        )
        return row[0] if row else None

    def prune(self, *, limit: int = 10_000) -> int:
        """Delete some of what is past its time; gives how many cells."""

        def delete(span: Span, kept: timedelta) -> int:
            params = {"span": span.value, "kept": kept, "limit": limit}
            return self._database.run(lambda own: own.execute(PRUNE, params).rowcount)

        deleted = delete(Span.HOUR, HOURS_KEPT) + delete(Span.DAY, DAYS_KEPT)
        self._database.run(lambda own: own.execute(PRUNE_TOTALS, {"kept": HOURS_KEPT}))
        return deleted


def together(cells: Iterable[Cell]) -> Times:
    """Add up the times of cells."""
    return add_up(cell.times for cell in cells)


def add_up(times: Iterable[Times]) -> Times:
    """Give the times of all the jobs together."""
    buckets: Counter[int] = Counter()
    total = timedelta(0)
    for each in times:
        total += each.total
        buckets.update(each.buckets)
    return Times(buckets, total)


def _cells_of(rows: Iterable[tuple[Any, ...]]) -> list[Cell]:
    found: dict[tuple[datetime, Engine, JobStatus], list[tuple[int, int, int]]] = {}
    for at, engine, status, bucket, jobs, ms in rows:
        found.setdefault((at, Engine.parse(engine), JobStatus(status)), []).append((bucket, jobs, ms))
    return [
        Cell(at=at, engine=engine, status=status, jobs=sum(jobs for _, jobs, _ in parts), times=_times(parts))
        for (at, engine, status), parts in found.items()
    ]


def _times(parts: Iterable[tuple[int, int, int]]) -> Times:
    # A bucket of -1: that time is not known.
    known = (
        Times({bucket: jobs} if bucket >= 0 else {}, timedelta(milliseconds=ms)) for bucket, jobs, ms in parts
    )
    return add_up(known)


def _edges(bucket: int) -> tuple[float, float]:
    """Give the least and the greatest time of a bucket; the last one has no end, so it is taken for its beginning."""
    below = BOUNDS[bucket - 1] if bucket > 0 else 0
    return below, BOUNDS[bucket] if bucket < len(BOUNDS) else below

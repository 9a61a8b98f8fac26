"""The log of changed jobs: written while somebody watches, read without loss and without a lock that jobs would feel.

A trigger on `jobs` inserts the id of each job that is made, or changes its status or progress, into `job_events`, if
some row of `job_watchers` is not past its time. A watcher renews its row, reads the log a few times a second, and when
it was quiet for a while marks its row as asleep: only then the trigger sends a NOTIFY.

**Ids come in order, commits do not.** So a reader remembers the ids that it did not see below the newest it saw
(`Gaps`), and asks for them again. A gap is no loss once the transaction that took its id is over: it was rolled back.
When that is, is known: the reader takes a transaction id itself after it noticed the gap, and the gap's is less than
that.

**What was before a watcher is not in the log.** A transaction that looked for watchers before the row was there tells
nothing when it commits. So a watcher is complete when all transactions are over that are older than its row; whoever
reads the jobs anew then misses nothing afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import kwargs_row

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.store.counts import counts

CHANNEL = "jobbridge_events"

#: A watcher that does not renew its row is gone after so many seconds, and nothing is written for it any more.
LEASE = 60.0
#: Changes that one look takes.
LOOK = 2_000
#: Who has more unread than that begins anew: a bulk import is not told job by job.
MOST_UNREAD = 20_000
#: Unknown ids that a reader remembers: more are a bulk import that was rolled back.
MOST_GAPS = 5_000
#: Rows of the log that one statement deletes.
PRUNE_BATCH = 10_000

WATCH: LiteralString = """
INSERT INTO public.job_watchers (watcher_id, until)
VALUES (%(watcher_id)s, now() + %(lease)s * interval '1 second')
ON CONFLICT (watcher_id) DO UPDATE SET until = excluded.until, is_asleep = false
"""

#: One that is past its time already has missed something.
RENEW: LiteralString = """
UPDATE public.job_watchers SET until = now() + %(lease)s * interval '1 second'
WHERE watcher_id = %(watcher_id)s AND until > now()
RETURNING true
"""

FALL_ASLEEP: LiteralString = (
    "UPDATE public.job_watchers SET is_asleep = true WHERE watcher_id = %(watcher_id)s"
)
WAKE_UP: LiteralString = "UPDATE public.job_watchers SET is_asleep = false WHERE watcher_id = %(watcher_id)s"

LEAVE: LiteralString = "DELETE FROM public.job_watchers WHERE watcher_id = %(watcher_id)s"

#: Of processes that were killed.
FORGET_OTHERS: LiteralString = "DELETE FROM public.job_watchers WHERE until < now() - interval '1 hour'"

#: A sequence is read as it is, whatever the transaction's snapshot. A new one says 1, and has given nothing.
NEWEST: LiteralString = "SELECT last_value - (NOT is_called)::integer FROM public.job_events_event_id_seq"

#: Greater than the id of each transaction that has one now.
BOUND: LiteralString = "SELECT pg_current_xact_id()::text::bigint"

#: The first column: all transactions below that are over, as this statement sees it.
READ: LiteralString = """
SELECT moment.over_below, moment.bound, event.event_id, event.job_id
FROM (
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS over_below,
        CASE WHEN %(needs_bound)s THEN pg_current_xact_id()::text::bigint END AS bound
) AS moment
LEFT JOIN (
    (
        SELECT event_id, job_id FROM public.job_events
        WHERE event_id > %(after)s
        ORDER BY event_id
        LIMIT %(limit)s
    )
    UNION ALL
    SELECT event_id, job_id FROM public.job_events WHERE event_id = ANY(%(gaps)s)
) AS event ON true
"""

#: What a reader saw, for somebody who comes back.
MISSED: LiteralString = """
SELECT job_id FROM public.job_events
WHERE event_id > %(after)s AND event_id <= %(upto)s
LIMIT %(limit)s
"""

#: Never what some reader may still look for: gaps of that time stay.
PRUNE: LiteralString = """
DELETE FROM public.job_events WHERE event_id = ANY(ARRAY(
    SELECT event_id FROM public.job_events
    WHERE event_id <= %(upto)s AND event_id <> ALL(%(gaps)s)
    ORDER BY event_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
))
"""

#: By the index on the id alone. An error is cut late enough that its first line is still masked as a whole.
JOBS: LiteralString = """
SELECT tenant, job_id, type, status, runner_type, queue, attempt, progress, progress_message,
    left(error, 4000) AS error, created_at, updated_at, run_at, started_at, completed_at, root_id,
    group_id
FROM public.jobs
WHERE job_id = ANY(%(job_ids)s)
"""

#: The answer of `counts.TOTALS_OF_TENANT` for several at once.
TOTALS_OF_TENANTS: LiteralString = """
SELECT tenant, engine, status, sum(jobs)::bigint
FROM (
    SELECT tenant, engine, status, jobs FROM public.job_counts WHERE tenant = ANY(%(tenants)s)
    UNION ALL
    SELECT tenant, engine, status, 1 FROM public.job_count_changes
    WHERE status IS NOT NULL AND tenant = ANY(%(tenants)s)
    UNION ALL
    SELECT tenant, engine_before, status_before, -1 FROM public.job_count_changes
    WHERE status_before IS NOT NULL AND tenant = ANY(%(tenants)s)
) AS each
GROUP BY tenant, engine, status
HAVING sum(jobs) <> 0
"""

Totals = dict[tuple[Engine, JobStatus], int]


class LostTrack(Exception):
    """What changed cannot be told one by one any more: whoever shows jobs reads them anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRow:
    """What is told of a job."""

    tenant: TenantId
    job_id: UUID
    type: str
    status: JobStatus
    engine: Engine
    queue: str | None
    attempt: int
    progress: float | None
    progress_message: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    root_id: UUID | None = None
    group_id: str | None = None


class Gaps:
    """How far a log was read, and which ids before that were not seen yet."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self._bounds: dict[int, int | None] = {}

    def __len__(self) -> int:
        return len(self._bounds)

    @property
    def ids(self) -> list[int]:
        return list(self._bounds)

    @property
    def needs_bound(self) -> bool:
        """Some have none yet: the next look must say which transactions they can be of."""
        return None in self._bounds.values()

    @property
    def complete_to(self) -> int:
        """Every id up to this one was seen, or will never be."""
        return min(self._bounds, default=self.newest + 1) - 1

    def note(self, seen: Collection[int], *, over_below: int, bound: int | None) -> None:
        """Take in what a look has seen.

        Args:
            seen: Of what was asked for: the gaps, and what is newer than `newest`, in order and up to some id.
            over_below: All transactions below that were over for this look.
            bound: If it was needed: all transactions that have an id by now are below it.
        """
        known = frozenset(seen)
        self._bounds = {
            gap: bound if is_below is None else is_below
            for gap, is_below in self._bounds.items()
            if gap not in known and (is_below is None or is_below > over_below)
        }
        newest = max(known, default=self.newest)
        missing = newest - self.newest - sum(1 for event_id in known if event_id > self.newest)
        if missing + len(self._bounds) > MOST_GAPS:
            raise LostTrack(f"{missing} ids are missing between {self.newest} and {newest}")
        if missing > 0:
            self._bounds |= {
                event_id: None for event_id in range(self.newest + 1, newest) if event_id not in known
            }
        self.newest = max(self.newest, newest)


class LiveLog:
    """The log, as one watcher reads it on a connection of its own.

    Args:
        connection: In autocommit mode.
        watcher_id: Whose row it is: the same after a lost connection, else nobody would wake up the row that is left.
        lease: Seconds.
    """

    def __init__(
        self, connection: psycopg.AsyncConnection[Any], watcher_id: UUID, *, lease: float = LEASE
    ) -> None:
        self._connection = connection
        self._own = {"watcher_id": watcher_id, "lease": lease}
        self._gaps = Gaps(0)
        self._bound = 0
        #: Ids after that are in the log, if they were not pruned.
        self.begins_after = 0
        #: All transactions that the log may lack are over.
        self.is_complete = False

    @property
    def complete_to(self) -> int:
        """Every change up to this one was read."""
        return self._gaps.complete_to

    async def watch(self) -> None:
        """Have changes written from now on, and be woken by them."""
        await self._connection.execute(FORGET_OTHERS)
        await self._connection.execute(WATCH, self._own)
        await self._connection.execute(f"LISTEN {CHANNEL}")
        await self.begin()

    async def begin(self) -> None:
        """Read from here on."""
        self.is_complete = False
        # In this order: who takes an id up to the newest has a transaction id below the bound.
        self._gaps = Gaps(await self._value(NEWEST))
        self._bound = await self._value(BOUND)
        self.begins_after = self._gaps.newest

    async def renew(self) -> None:
        """Go on watching.

        Raises:
            LostTrack: For a time this was not seen to watch.
        """
        if await (await self._connection.execute(RENEW, self._own)).fetchone() is None:
            await self._connection.execute(WATCH, self._own)
            raise LostTrack("the watcher was not renewed in time")

    async def sleep(self, is_asleep: bool) -> None:
        """Ask to be woken, or not."""
        await self._connection.execute(FALL_ASLEEP if is_asleep else WAKE_UP, self._own)

    async def leave(self) -> None:
        """Have nothing written any more."""
        await self._connection.execute(LEAVE, self._own)

    async def read(self) -> tuple[list[UUID], bool]:
        """Give the jobs that changed, each once, and whether there is more to read at once.

        Raises:
            LostTrack: There is too much of it.
        """
        gaps = self._gaps
        asked = {"after": gaps.newest, "gaps": gaps.ids, "needs_bound": gaps.needs_bound, "limit": LOOK}
        rows = await (await self._connection.execute(READ, asked)).fetchall()
        over_below, bound = rows[0][0], rows[0][1]
        events = {event_id: job_id for _, _, event_id, job_id in rows if event_id is not None}
        gaps.note(events.keys(), over_below=over_below, bound=bound)
        self.is_complete = self.is_complete or over_below >= self._bound
        has_more = len(events) >= LOOK
        if has_more and await self._value(NEWEST) - gaps.newest > MOST_UNREAD:
            raise LostTrack(f"more than {MOST_UNREAD} changes are unread")
        return list(dict.fromkeys(events.values())), has_more

    async def missed(self, after: int, *, limit: int) -> list[UUID] | None:
        """Give the jobs that changed since, as far as was read; None: the log does not know, or too many changes."""
        if not self.is_complete or not self.begins_after <= after <= self._gaps.newest:
            return None
        asked = {"after": after, "upto": self._gaps.newest, "limit": limit + 1}
        rows = await (await self._connection.execute(MISSED, asked)).fetchall()
        return None if len(rows) > limit else list(dict.fromkeys(job_id for (job_id,) in rows))

    def mark(self) -> tuple[int, list[int]]:
        """Give how far it was read: for `prune`, a while later."""
        return self._gaps.newest, self._gaps.ids

    async def prune(self, mark: tuple[int, list[int]]) -> None:
        """Delete what was read before the mark. Other readers have read it too, if that was longer than they pause."""
        upto, gaps = mark
        self.begins_after = max(self.begins_after, upto)
        deleted = PRUNE_BATCH
        while deleted == PRUNE_BATCH:
            cursor = await self._connection.execute(PRUNE, {"upto": upto, "gaps": gaps, "limit": PRUNE_BATCH})
            deleted = cursor.rowcount

    async def jobs(self, job_ids: Sequence[UUID]) -> list[LiveRow]:
        """Give what these jobs are now."""
        async with self._connection.cursor(row_factory=kwargs_row(_live_row)) as cursor:
            return await (await cursor.execute(JOBS, {"job_ids": list(job_ids)})).fetchall()

    async def totals(self) -> Totals:
        """Count all jobs."""
        rows = await (await self._connection.execute(counts.TOTALS)).fetchall()
        return _totals(rows)

    async def totals_of(self, tenants: Iterable[TenantId]) -> Mapping[TenantId | None, Totals]:
        """Count the jobs of some tenants, which must be of the column's type."""
        asked = list(tenants)
        rows = await (await self._connection.execute(TOTALS_OF_TENANTS, {"tenants": asked})).fetchall()
        by_tenant: dict[TenantId | None, list[Any]] = {tenant: [] for tenant in asked}
        for tenant, *row in rows:
            by_tenant[TenantId(str(tenant))].append(row)
        return {tenant: _totals(own) for tenant, own in by_tenant.items()}

    async def _value(self, statement: LiteralString) -> int:
        row = await (await self._connection.execute(statement)).fetchone()
        assert row is not None
        return int(row[0])


def _totals(rows: Iterable[Sequence[Any]]) -> Totals:
    totals: Totals = {}
    for engine, status, jobs in rows:
        known = (Engine.parse(engine), JobStatus(status))
        totals[known] = totals.get(known, 0) + jobs
    return totals


def _live_row(*, tenant: object, runner_type: str, status: str, **columns: Any) -> LiveRow:
    return LiveRow(
        tenant=TenantId(str(tenant)), engine=Engine.parse(runner_type), status=JobStatus(status), **columns
    )

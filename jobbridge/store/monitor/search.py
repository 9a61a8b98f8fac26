"""What a monitor asks of the jobs. Each question reads a bounded number of rows, however many there are.

Jobs are looked for in steps, from the newest on, until the page is full or the time is over. A step reads so many jobs
along an index. Open ones and those that ended otherwise than well have one each (decision 0017), and are read alone
where only such were asked for. Type, text and the like have none: they are asked of each job that was read.

An id that has an index is looked up: what it finds is on the first page, however old it is, and on no other.

If the time is over before the page is full, `next` goes on from where the search ended: `searched_to` tells the reader
how far it came. Each page comes on by one step at least.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.jobs.queries import ARE_OPEN, rare_ones
from jobbridge.store.jobs.rows import JobRow, job_row
from jobbridge.store.monitor.search_statements import MINE, Position, Questions, failed, names_of

#: For how long a page is searched for; a step that has begun is ended.
BUDGET = timedelta(milliseconds=30)
#: So many times as long, if only open jobs are asked for: what runs may be behind a hundred thousand that wait.
BUDGETS_OF_OPEN = 3
#: Jobs that one scan reads: some 5 ms, if they are in memory.
SCAN = 5_000
#: The same, of one tenant, or of those that did not end well: they are far apart, so each may be a page from the disk.
SCAN_OF_FEW = 500

_LEAST_ID = UUID(int=0)
_NEWEST: Position = (datetime(9999, 1, 1, tzinfo=UTC), _LEAST_ID)

__all__ = ["FoundPage", "MonitorStore", "Position", "Search"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Which jobs; what is None does not matter.

    Attributes:
        since: Made then or later.
        until: Made before then.
        ended_since: Ended then or later, whenever it was made.
        text: Somewhere in the error as it is shown, in any case of letters; the beginning of the job's id; or another
            id of it.
    """

    tenant: TenantId | None = None
    statuses: Sequence[JobStatus] | None = None
    type: str | None = None
    engine: Engine | None = None
    queue: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ended_since: datetime | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundPage:
    """Some jobs, newest first.

    Attributes:
        next: Where to go on; None: there are no more.
        searched_to: All jobs that match and are not older than this are in this page or before it; None: all.
    """

    jobs: Sequence[JobRow]
    next: Position | None
    searched_to: datetime | None


class MonitorStore:
    """Searches jobs.

    Args:
        database: Where they are.
        scan: How many jobs a scan reads.
        budget: For how long a page is searched for.
    """

    def __init__(self, database: Database, *, scan: int = SCAN, budget: timedelta = BUDGET) -> None:
        self._database = database
        self._scan, self._budget = scan, budget.total_seconds()

    def page(self, search: Search, *, before: Position | None = None, limit: int = 50) -> FoundPage:
        """Give one page of the jobs that match, newest first.

        Args:
            search: Which.
            before: The `next` of the page before.
            limit: At most so many; a page that has fewer is the last one only if its `next` is None.
        """
        return self._database.run(
            lambda own: _PageSearch(own, search, limit=limit, scan=self._scan, budget=self._budget).run(
                before
            )
        )

    def failed(self, *, since: datetime, tenant: TenantId | None = None, limit: int) -> Sequence[JobRow]:
        """Give the jobs that failed since then, whenever they were made, the latest first."""
        statement = failed("" if tenant is None else MINE)
        params = {"since": since, "tenant": tenant, "limit": limit}
        return self._database.run(lambda own: all_rows(own, job_row, statement, params))


#: Some jobs that match, and up to where all of them were found; None: there are no more.
_Found = tuple[list[JobRow], Position | None]


class _PageSearch:
    """One search, on one connection."""

    def __init__(
        self, connection: DriverConnection, search: Search, *, limit: int, scan: int, budget: float
    ) -> None:
        self._limit = limit
        self._text = search.text
        self._newest = _NEWEST if search.until is None else (search.until, _LEAST_ID)
        rare = rare_ones(search.statuses)
        self._budget = budget * BUDGETS_OF_OPEN if rare == [ARE_OPEN] else budget
        is_dense = search.tenant is None and rare in ([], [ARE_OPEN])
        self._questions = Questions(
            connection,
            {
                "tenant": search.tenant,
                "statuses": None if search.statuses is None else [status.value for status in search.statuses],
                "type": search.type,
                "engines": names_of(search.engine),
                "queue": search.queue,
                "since": search.since,
                "until": search.until,
                "ended_since": search.ended_since,
                "text": search.text,
                "scan": scan if is_dense else min(scan, SCAN_OF_FEW),
                "limit": limit + 1,
            },
            rare,
        )

    def run(self, before: Position | None) -> FoundPage:
        known = self._by_ids()
        on_this_page = known if before is None else []
        room = self._limit - len(on_this_page)
        self._questions.limit = room + 1
        found, end = self._search(min(before or _NEWEST, self._newest), room)
        jobs = sorted([*found[:room], *on_this_page], key=_place, reverse=True)
        if len(found) > room:
            return FoundPage(jobs=jobs, next=_place(found[room - 1]), searched_to=None)
        return FoundPage(jobs=jobs, next=end, searched_to=None if end is None else end[0])

    def _by_ids(self) -> list[JobRow]:
        """Give the jobs that have the text as an id, if they leave room on a page; a search finds them no more."""
        if self._text is None:
            return []
        found = {row.job_id: row for row in self._questions.by_ids(self._text)}
        if len(found) >= self._limit:
            return []
        self._questions.leave_out(list(found))
        return list(found.values())

    def _search(self, start: Position, room: int) -> _Found:
        """Scan, and go on step by step until the page is full, or the time is over, or there are no more."""
        ends_at = time.monotonic() + self._budget
        found, end = self._questions.newest(start)
        while end is not None and len(found) <= room and time.monotonic() < ends_at:
            more, end = self._questions.newest(end)
            found += more
        return found, end


def _place(job: JobRow) -> Position:
    return job.created_at, job.job_id

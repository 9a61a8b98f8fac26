"""What a monitor asks of the jobs. Each question reads a bounded number of rows, however many there are.

`jobs` has no index on the status, nor on the type or the text of an error (decision 0003). So the jobs that match a
filter are looked for in steps, from the newest on, until the page is full or the time is over:

- A *scan* reads the newest jobs (of the tenant) along an index. That finds what is frequent, and is the first step.
- Where statuses were asked for, the cells of `job_hours` (see `counting`) lead to the hours and tenants that have such
  jobs at all, and only those are read. That finds what is rare. An hour in which that would be too much is scanned, a
  portion at a time; the hours without such jobs are leapt over all the same.
- An id that has an index is looked up: what it finds is on the first page, however old it is, and on no other.

If the time is over before the page is full, `next` goes on from where the search ended: `searched_to` tells the reader
how far it came. Each page comes on by one step at least.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.store.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.jobs.rows import JobRow
from jobbridge.store.monitor.search_statements import Position, Questions, names_of

#: For how long a page is searched for; a step that has begun is ended.
BUDGET = timedelta(milliseconds=30)
#: Jobs that one scan reads: some 5 ms, if they are in memory.
SCAN = 5_000
#: The same, of one tenant, or where cells lead on: such jobs are far apart, so each may be a page from the disk.
SCAN_OF_FEW = 1_500
#: Cells of a status that are looked for at once, and of how many of them the jobs are read in one step.
CELLS = 300
CELLS_OF_STEP = 60
#: Jobs that one step reads in cells; more in one hour are scanned instead.
ROWS_OF_STEP = 3_000

_LEAST_ID = UUID(int=0)
_NEWEST: Position = (datetime(9999, 1, 1, tzinfo=UTC), _LEAST_ID)
_HOUR = timedelta(hours=1)
_INSTANT = timedelta(microseconds=1)

__all__ = ["FoundPage", "MonitorStore", "Position", "Search"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Which jobs; what is None does not matter.

    Attributes:
        since: Made then or later.
        until: Made before then.
        ended_since: Ended then or later, whenever it was made.
        text: Somewhere in the error, in any case of letters; the beginning of the job's id; or another id of it.
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
        cells: How many cells are looked for at once.
        rows: How many jobs one step reads in cells.
        budget: For how long a page is searched for.
    """

    def __init__(
        self,
        database: Database,
        *,
        scan: int = SCAN,
        cells: int = CELLS,
        rows: int = ROWS_OF_STEP,
        budget: timedelta = BUDGET,
    ) -> None:
        self._database = database
        self._bounds = _Bounds(scan=scan, cells=cells, rows=rows, budget=budget)

    def page(self, search: Search, *, before: Position | None = None, limit: int = 50) -> FoundPage:
        """Give one page of the jobs that match, newest first.

        Args:
            search: Which.
            before: The `next` of the page before.
            limit: At most so many; a page that has fewer is the last one only if its `next` is None.
        """
        return self._database.run(
            lambda own: _PageSearch(own, search, limit=limit, bounds=self._bounds).run(before)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bounds:
    scan: int
    cells: int
    rows: int
    budget: timedelta


#: Some jobs that match, and up to where all of them were found; None: there are no more.
_Found = tuple[list[JobRow], Position | None]


class _PageSearch:
    """One search, on one connection."""

    def __init__(self, connection: DriverConnection, search: Search, *, limit: int, bounds: _Bounds) -> None:
        self._limit = limit
        self._bounds = bounds
        self._text = search.text
        self._has_statuses = search.statuses is not None
        self._newest = _NEWEST if search.until is None else (search.until, _LEAST_ID)
        few = min(bounds.scan, SCAN_OF_FEW)
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
                "scan": bounds.scan if search.tenant is None and not self._has_statuses else few,
                "cells": bounds.cells,
                "limit": limit + 1,
            },
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
        ends_at = time.monotonic() + self._bounds.budget.total_seconds()
        found, end = self._questions.newest(start)
        step: Callable[[Position], _Found] = self._questions.newest
        if self._has_statuses:
            step = _Cells(self._questions, self._bounds).step
        # The cells are asked once, whatever the time: else what is rare would be on no first page.
        is_wanted = self._has_statuses
        while end is not None and len(found) <= room and (is_wanted or time.monotonic() < ends_at):
            more, end = step(end)
            found += more
            is_wanted = False
        return found, end


class _Cells:
    """Walks from cell to cell of the statuses that were asked for."""

    def __init__(self, questions: Questions, bounds: _Bounds) -> None:
        self._questions = questions
        self._bounds = bounds
        self._hours: list[datetime] = []  # one for each cell, newest first
        self._hours_to: datetime | None = None  # since when they are all; None: ever

    def step(self, start: Position) -> _Found:
        """Read some cells, or the newest jobs from the next cell on."""
        last = start[0] if start[1] > _LEAST_ID else start[0] - _INSTANT
        self._hours = [hour for hour in self._hours if hour <= last]
        if not self._hours:
            self._hours, self._hours_to = self._ask(last)
        if not self._hours:
            return [], None
        hours = self._affordable()
        if not hours:  # what was leapt over has no such jobs
            return self._questions.newest(min(start, (self._hours[0] + _HOUR, _LEAST_ID)))
        found = self._questions.in_cells(start, hours[-1], hours[0])
        self._hours = [hour for hour in self._hours if hour < hours[-1]]
        if self._hours:
            return found, (hours[-1], _LEAST_ID)
        return found, None if self._hours_to is None else (min(hours[-1], self._hours_to), _LEAST_ID)

    def _ask(self, last: datetime) -> tuple[list[datetime], datetime | None]:
        """Give the hours of the next cells; and since when they are all."""
        by_status: dict[str, list[datetime]] = {}
        for status, hour in self._questions.hours(last):
            by_status.setdefault(status, []).append(hour)
        # Of a list that was cut, its oldest hour may miss cells; what is read is whole hours.
        most = self._bounds.cells
        cut = [min(hours) for hours in by_status.values() if len(hours) >= most]
        hours = sorted((hour for own in by_status.values() for hour in own), reverse=True)
        if len(hours) > most:
            cut.append(hours[most - 1])
        complete_from = max(cut, default=None)
        return [hour for hour in hours if complete_from is None or hour >= complete_from], complete_from

    def _affordable(self) -> list[datetime]:
        """Give the next hours that one step can read, newest first; none: the first one is too much already."""
        last, first = self._hours[0], self._hours[:CELLS_OF_STEP][-1]
        rows, hours = 0, []
        for hour, in_hour in self._questions.rows_in_cells(first, last):
            rows += in_hour
            if rows > self._bounds.rows:
                break
            hours.append(hour)
        return hours


def _place(job: JobRow) -> Position:
    return job.created_at, job.job_id

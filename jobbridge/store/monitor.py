"""What a monitor asks of the jobs. Each question reads a bounded number of rows, however many there are.

`jobs` has no index on the status, nor on the type or the text of an error (decision 0003). So a page of the jobs that
match a filter is found in two steps:

1. The newest `SCAN` jobs (of the tenant) are read along an index, and those that match are the page. That finds what is
   frequent.
2. If they are too few and statuses were asked for, the cells of `job_hours` (see `counting`) lead to the hours and
   tenants that have such jobs at all: the newest of them, up to `CELLS`. That finds what is rare.

If that is still too few, the page has fewer jobs than its limit, and `next` goes on from where the search ended:
`searched_to` tells the reader how far it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import kwargs_row

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.store.callers import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.jobs import COLUMNS
from jobbridge.store.rows import JobRow, job_row

#: Jobs that the first step reads: some 10 ms, if they are in memory.
SCAN = 10_000
#: The same, where the second step follows: a tenant's jobs are far apart, so each may be a page from the disk.
SCAN_BEFORE_CELLS = 2_000
#: Cells that the second step follows: some 25 ms. So many of them first, the newest: mostly they are enough.
CELLS = 150
FIRST_CELLS = 60

#: Where a search stands: it goes on with older jobs than this one.
Position = tuple[datetime, UUID]
_NEWEST: Position = (datetime(9999, 1, 1, tzinfo=UTC), UUID(int=0))
_LEAST_ID = UUID(int=0)

_OLDER: LiteralString = "(created_at, job_id) < (%(before_at)s, %(before_id)s)"
_NEWEST_FIRST: LiteralString = "ORDER BY created_at DESC, job_id DESC"

#: What the index, or the cells, are asked for. No cast: a tenant is text in some databases and a uuid in others.
_MINE: LiteralString = " AND tenant = %(tenant)s"
_SINCE: LiteralString = " AND created_at >= %(since)s"

#: What is asked of each job that was read.
_FILTERS: dict[str, LiteralString] = {
    "statuses": "status = ANY(%(statuses)s)",
    "type": "type = %(type)s",
    "engines": "runner_type = ANY(%(engines)s)",
    "queue": "queue = %(queue)s",
    "text": """(
        strpos(lower(coalesce(error, '')), lower(%(text)s)) > 0 OR starts_with(job_id::text, lower(%(text)s))
        OR external_id = %(text)s OR task_id = %(text)s OR singleton_key = %(text)s
        OR lower(%(text)s) IN (user_id::text, root_id::text, parent_id::text)
    )""",
}


def _scan(of: LiteralString) -> LiteralString:
    return f"""
SELECT {COLUMNS}
FROM (
    SELECT {COLUMNS} FROM public.jobs
    WHERE {_OLDER}{of}
    {_NEWEST_FIRST}
    LIMIT %(scan)s
) AS newest
WHERE {{filters}}
{_NEWEST_FIRST}
LIMIT %(limit)s
"""


def _end_of_scan(of: LiteralString) -> LiteralString:
    return f"""
SELECT created_at, job_id FROM public.jobs
WHERE {_OLDER}{of}
{_NEWEST_FIRST}
OFFSET %(scan)s - 1
LIMIT 1
"""


def _hours(of: LiteralString) -> LiteralString:
    return f"""
SELECT wanted.status, cell.hour
FROM unnest(%(statuses)s::text[]) AS wanted (status)
CROSS JOIN LATERAL (
    (
        SELECT hour FROM public.job_hours
        WHERE status = wanted.status AND hour <= %(before_at)s{of}
        ORDER BY hour DESC
        LIMIT %(cells)s
    )
    UNION ALL
    (
        SELECT hour FROM public.job_count_changes
        WHERE status = wanted.status AND hour <= %(before_at)s{of}
        ORDER BY hour DESC
        LIMIT %(cells)s
    )
) AS cell
"""


def _in_cells(of: LiteralString, since: LiteralString) -> LiteralString:
    found = ", ".join(f"job.{name.strip()}" for name in COLUMNS.split(","))
    return f"""
WITH cell AS MATERIALIZED (
    SELECT tenant, hour FROM public.job_hours
    WHERE status = ANY(%(statuses)s) AND hour BETWEEN %(first_hour)s AND %(last_hour)s{of}
    UNION
    SELECT tenant, hour FROM public.job_count_changes
    WHERE status = ANY(%(statuses)s) AND hour BETWEEN %(first_hour)s AND %(last_hour)s{of}
)
SELECT {found}
FROM cell
CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM public.jobs
    WHERE tenant = cell.tenant AND created_at >= cell.hour AND created_at < cell.hour + interval '1 hour'
      AND {_OLDER}{since} AND {{filters}}
    {_NEWEST_FIRST}
    LIMIT %(limit)s
) AS job
ORDER BY job.created_at DESC, job.job_id DESC
LIMIT %(limit)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Which jobs; what is None does not matter.

    Attributes:
        since: Made then or later.
        until: Made before then.
        text: Somewhere in the error, in any case of letters; the beginning of the job's id; or another id of it.
    """

    tenant: TenantId | None = None
    statuses: Sequence[JobStatus] | None = None
    type: str | None = None
    engine: Engine | None = None
    queue: str | None = None
    since: datetime | None = None
    until: datetime | None = None
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
        scan: How many jobs the first step reads.
        cells: How many cells the second step follows.
    """

    def __init__(self, database: Database, *, scan: int = SCAN, cells: int = CELLS) -> None:
        self._database = database
        self._scan = scan
        self._cells = cells

    def page(self, search: Search, *, before: Position | None = None, limit: int = 50) -> FoundPage:
        """Give one page of the jobs that match, newest first.

        Args:
            search: Which.
            before: The `next` of the page before.
            limit: At most so many; a page that has fewer is the last one only if its `next` is None.
        """

        def work(own: DriverConnection) -> FoundPage:
            return _PageSearch(own, search, limit=limit, scan=self._scan, cells=self._cells).run(before)

        return self._database.run(work)


class _PageSearch:
    """One search, on one connection."""

    def __init__(
        self, connection: DriverConnection, search: Search, *, limit: int, scan: int, cells: int
    ) -> None:
        self._connection = connection
        self._limit = limit
        self._newest = _NEWEST if search.until is None else (search.until, _LEAST_ID)
        self._has_statuses = search.statuses is not None
        self._of = _MINE if search.tenant is not None else ""
        self._since = _SINCE if search.since is not None else ""
        self._values: dict[str, Any] = {
            "tenant": search.tenant,
            "statuses": None if search.statuses is None else [status.value for status in search.statuses],
            "type": search.type,
            "engines": _names(search.engine),
            "queue": search.queue,
            "since": search.since,
            "text": search.text,
            "limit": limit + 1,
            "scan": scan if search.statuses is None else min(scan, SCAN_BEFORE_CELLS),
            "cells": cells,
        }
        used = [sql.SQL(clause) for name, clause in _FILTERS.items() if self._values[name] is not None]
        self._filters = sql.SQL(" AND ").join(used) if used else sql.SQL("true")

    def run(self, before: Position | None) -> FoundPage:
        self._start_at(min(before or _NEWEST, self._newest))
        found = self._fetch(_scan(self._of + self._since))
        end = self._end_of_scan()
        if len(found) > self._limit or end is None:
            return self._page(found, searched_to=None)
        if self._has_statuses:
            self._start_at(end)
            hours, complete_from = self._hours()
            found += self._in_cells(hours, len(found))
            if len(found) > self._limit or complete_from is None:
                return self._page(found, searched_to=None)
            end = min(end, (complete_from, _LEAST_ID))
        return self._page(found, searched_to=end)

    def _page(self, found: list[JobRow], *, searched_to: Position | None) -> FoundPage:
        jobs = found[: self._limit]
        if len(found) > self._limit:
            return FoundPage(jobs=jobs, next=(jobs[-1].created_at, jobs[-1].job_id), searched_to=None)
        at = None if searched_to is None else searched_to[0]
        return FoundPage(jobs=jobs, next=searched_to, searched_to=at)

    def _start_at(self, position: Position) -> None:
        self._values |= {"before_at": position[0], "before_id": position[1]}

    def _end_of_scan(self) -> Position | None:
        """Give the last job that was scanned; None when there are no more."""
        statement = _end_of_scan(self._of + self._since)
        row = self._connection.execute(statement, self._values).fetchone()
        return None if row is None else (row[0], row[1])

    def _hours(self) -> tuple[list[datetime], datetime | None]:
        """Give the hours of the cells, newest first, one for each; and since when they are all."""
        by_status: dict[str, list[datetime]] = {}
        for status, hour in self._connection.execute(_hours(self._of), self._values).fetchall():
            by_status.setdefault(status, []).append(hour)
        # Of a list that was cut, its oldest hour may miss cells; `_in_cells` reads whole hours.
        most = self._values["cells"]
        cut = [min(hours) for hours in by_status.values() if len(hours) >= most]
        hours = sorted((hour for own in by_status.values() for hour in own), reverse=True)
        if len(hours) > most:
            cut.append(hours[most - 1])
        complete_from = max(cut, default=None)
        return [hour for hour in hours if complete_from is None or hour >= complete_from], complete_from

    def _in_cells(self, hours: list[datetime], already: int) -> list[JobRow]:
        found: list[JobRow] = []
        for portion in (FIRST_CELLS, len(hours)):
            if not hours or already + len(found) > self._limit:
                break
            last, first = hours[0], hours[min(portion, len(hours)) - 1]
            self._values |= {"first_hour": first, "last_hour": last}
            found += self._fetch(_in_cells(self._of, self._since))
            hours = [hour for hour in hours if hour < first]
        return found

    def _fetch(self, statement: LiteralString) -> list[JobRow]:
        with psycopg.Cursor(self._connection, row_factory=kwargs_row(job_row)) as cursor:
            composed = sql.SQL(statement).format(filters=self._filters)
            return cursor.execute(composed, self._values).fetchall()


def _names(engine: Engine | None) -> list[str] | None:
    if engine is None:
        return None
    return [engine.value, "pgboss"] if engine is Engine.CELERY else [engine.value]

"""The questions of `monitor`: each reads a bounded number of jobs, along an index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import kwargs_row

from jobbridge.core.keys import Engine, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.store.caller_connection import DriverConnection
from jobbridge.store.jobs.queries import COLUMNS
from jobbridge.store.jobs.rows import JobRow, job_row

#: Where a search stands: it goes on with older jobs than this one.
Position = tuple[datetime, UUID]

#: So many of the first digits of an id lead to it by an index; with fewer there are too many such ids.
PREFIX = 8

OLDER: LiteralString = "(created_at, job_id) < (%(before_at)s, %(before_id)s)"
NEWEST_FIRST: LiteralString = "ORDER BY created_at DESC, job_id DESC"

#: What the index, or the cells, are asked for. No cast: a tenant is text in some databases and a uuid in others.
MINE: LiteralString = " AND tenant = %(tenant)s"
SINCE: LiteralString = " AND created_at >= %(since)s"
UNTIL: LiteralString = " AND created_at < %(until)s"
SINCE_HOUR: LiteralString = " AND hour > %(since)s - interval '1 hour'"

_FINAL: LiteralString = "'completed', 'failed', 'cancelled', 'expired', 'skipped'"

#: What is asked of each job that was read.
FILTERS: dict[str, LiteralString] = {
    "statuses": "status = ANY(%(statuses)s)",
    "type": "type = %(type)s",
    "engines": "runner_type = ANY(%(engines)s)",
    "queue": "queue = %(queue)s",
    # Adopted rows may have ended without an instant.
    "ended_since": f"""
        CASE WHEN status IN ({_FINAL}) THEN coalesce(completed_at, updated_at) END >= %(ended_since)s
    """,
    "text": """(
        strpos(lower(coalesce(error, '')), lower(%(text)s)) > 0 OR starts_with(job_id::text, lower(%(text)s))
        OR external_id = %(text)s OR task_id = %(text)s OR singleton_key = %(text)s
        OR lower(%(text)s) IN (user_id::text, root_id::text, parent_id::text)
    )""",
    "known_ids": "job_id <> ALL(%(known_ids)s)",
}

_ALL_STATUSES = [status.value for status in JobStatus]


def scan(of: LiteralString) -> LiteralString:
    """The newest jobs, and of them those that match."""
    return f"""
SELECT {COLUMNS}
FROM (
    SELECT {COLUMNS} FROM public.jobs
    WHERE {OLDER}{of}
    {NEWEST_FIRST}
    LIMIT %(scan)s
) AS newest
WHERE {{filters}}
{NEWEST_FIRST}
LIMIT %(limit)s
"""


def end_of_scan(of: LiteralString) -> LiteralString:
    """The last job that `scan` reads; it reads the index only."""
    return f"""
SELECT created_at, job_id FROM public.jobs
WHERE {OLDER}{of}
{NEWEST_FIRST}
OFFSET %(scan)s - 1
LIMIT 1
"""


def hours(of: LiteralString) -> LiteralString:
    """The newest hours of cells with such a status; what was not folded yet counts, too (see `counting`)."""
    return f"""
SELECT wanted.status, cell.hour
FROM unnest(%(statuses)s::text[]) AS wanted (status)
CROSS JOIN LATERAL (
    (
        SELECT hour FROM public.job_hours
        WHERE status = wanted.status AND hour <= %(last_hour)s{of}
        ORDER BY hour DESC
        LIMIT %(cells)s
    )
    UNION ALL
    (
        SELECT hour FROM public.job_count_changes
        WHERE status = wanted.status AND hour <= %(last_hour)s{of}
        ORDER BY hour DESC
        LIMIT %(cells)s
    )
) AS cell
"""


def _cells(of: LiteralString) -> LiteralString:
    return f"""
WITH cell AS MATERIALIZED (
    SELECT tenant, hour FROM public.job_hours
    WHERE status = ANY(%(statuses)s) AND hour BETWEEN %(first_hour)s AND %(last_hour)s{of}
    UNION
    SELECT tenant, hour FROM public.job_count_changes
    WHERE status = ANY(%(statuses)s) AND hour BETWEEN %(first_hour)s AND %(last_hour)s{of}
)"""


def rows_in_cells(of: LiteralString) -> LiteralString:
    """How many jobs `in_cells` would read in each hour, newest first, as far as they are folded."""
    return f"""{_cells(of)}
SELECT cell.hour, coalesce(sum(own.jobs), 0)::bigint
FROM cell
CROSS JOIN LATERAL (
    SELECT sum(jobs) AS jobs FROM public.job_hours
    WHERE tenant = cell.tenant AND status = ANY(%(all_statuses)s) AND hour = cell.hour
) AS own
GROUP BY cell.hour
ORDER BY cell.hour DESC
"""


def in_cells(of: LiteralString, since: LiteralString) -> LiteralString:
    """Those that match, of all jobs of the tenants and hours that have such a status."""
    found = ", ".join(f"job.{name.strip()}" for name in COLUMNS.split(","))
    return f"""{_cells(of)}
SELECT {found}
FROM cell
CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM public.jobs
    WHERE tenant = cell.tenant AND created_at >= cell.hour AND created_at < cell.hour + interval '1 hour'
      AND {OLDER}{since} AND {{filters}}
    {NEWEST_FIRST}
    LIMIT %(limit)s
) AS job
ORDER BY job.created_at DESC, job.job_id DESC
LIMIT %(limit)s
"""


def by_ids(of: LiteralString) -> LiteralString:
    """Jobs with such an id, whenever they were made. The inner orders keep Postgres to the indexes of the ids."""
    return f"""
SELECT {COLUMNS}
FROM (
    (
        SELECT {COLUMNS} FROM public.jobs
        WHERE job_id BETWEEN %(first_id)s AND %(last_id)s{of}
        ORDER BY job_id
        LIMIT %(scan)s
    )
    UNION ALL
    (
        SELECT {COLUMNS} FROM public.jobs
        WHERE job_id = %(derived_id)s{of}
        ORDER BY job_id
        LIMIT %(scan)s
    )
    UNION ALL
    (
        SELECT {COLUMNS} FROM public.jobs
        WHERE external_id = %(text)s{of}
        ORDER BY external_id, tenant
        LIMIT %(scan)s
    )
) AS known
WHERE {{filters}}
LIMIT %(limit)s
"""


class Questions:
    """Asks for what one search wants, on one connection.

    Args:
        connection: Which.
        values: What the statements name. Filters that are None do not matter; nor do tenant, since, until.
    """

    def __init__(self, connection: DriverConnection, values: dict[str, Any]) -> None:
        self._connection = connection
        self._values = {"known_ids": None, "all_statuses": _ALL_STATUSES} | values
        self._of_cells: LiteralString = MINE if values["tenant"] is not None else ""
        has_since = values["since"] is not None
        self._since: LiteralString = SINCE if has_since else ""
        self._of_hours: LiteralString = self._of_cells + (SINCE_HOUR if has_since else "")
        self._of_jobs: LiteralString = self._of_cells + self._since
        self._of_ids: LiteralString = self._of_jobs + (UNTIL if values["until"] is not None else "")

    @property
    def limit(self) -> int:
        """How many jobs an answer has at most."""
        return int(self._values["limit"])

    @limit.setter
    def limit(self, limit: int) -> None:
        self._values["limit"] = limit

    def leave_out(self, ids: Sequence[UUID]) -> None:
        """Find these jobs no more."""
        self._values["known_ids"] = list(ids) or None

    def newest(self, start: Position) -> tuple[list[JobRow], Position | None]:
        """Scan the newest jobs; gives those that match, and where the scan ended. None: there were no more."""
        found = self._fetch(scan(self._of_jobs), _from(start))
        if len(found) >= self.limit:
            return found, start  # that is all that is wanted: nobody asks where it ended
        rows = self._rows(end_of_scan(self._of_jobs), _from(start))
        return found, (rows[0][0], rows[0][1]) if rows else None

    def by_ids(self, text: str) -> list[JobRow]:
        """Give some jobs that have that id, whenever they were made."""
        return self._fetch(by_ids(self._of_ids), _ids_of(text))

    def hours(self, last: datetime) -> list[tuple[Any, ...]]:
        """Give status and hour of the newest cells, not newer than `last`."""
        return self._rows(hours(self._of_hours), {"last_hour": last})

    def rows_in_cells(self, first: datetime, last: datetime) -> list[tuple[Any, ...]]:
        """Give each hour from last to first that has cells, and how many jobs `in_cells` would read there."""
        return self._rows(rows_in_cells(self._of_cells), {"first_hour": first, "last_hour": last})

    def in_cells(self, start: Position, first: datetime, last: datetime) -> list[JobRow]:
        """Give the newest jobs that match and are in cells of these hours."""
        hours_of_step = {"first_hour": first, "last_hour": last}
        return self._fetch(in_cells(self._of_cells, self._since), _from(start) | hours_of_step)

    def _fetch(self, statement: LiteralString, more: dict[str, Any]) -> list[JobRow]:
        used = [sql.SQL(clause) for name, clause in FILTERS.items() if self._values[name] is not None]
        composed = sql.SQL(statement).format(filters=sql.SQL(" AND ").join(used) if used else sql.SQL("true"))
        with psycopg.Cursor(self._connection, row_factory=kwargs_row(job_row)) as cursor:
            # Not prepared: a plan that is made once is one for the usual values, and these are rare ones.
            return cursor.execute(composed, self._values | more, prepare=False).fetchall()

    def _rows(self, statement: LiteralString, more: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, self._values | more, prepare=False).fetchall()


def names_of(engine: Engine | None) -> list[str] | None:
    """Give what rows call an engine."""
    if engine is None:
        return None
    return [engine.value, "pgboss"] if engine is Engine.CELERY else [engine.value]


def _from(start: Position) -> dict[str, Any]:
    return {"before_at": start[0], "before_id": start[1]}


def _ids_of(text: str) -> dict[str, Any]:
    """Give the ids that begin so, and the one of a Celery task that is called so."""
    lower = text.lower()
    digits = lower.replace("-", "")
    first = last = UUID(int=0)
    if PREFIX <= len(digits) <= 32 and set(digits) <= set("0123456789abcdef"):
        least = UUID(digits.ljust(32, "0"))
        if str(least).startswith(lower):  # its hyphens are where those of an id are
            first, last = least, UUID(digits.ljust(32, "f"))
    return {"first_id": first, "last_id": last, "derived_id": job_id_for(text)}

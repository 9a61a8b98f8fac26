"""The questions of `monitor`: each reads a bounded number of jobs, along an index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import sql
from psycopg.rows import kwargs_row

from jobbridge.core.keys import Engine, job_id_for
from jobbridge.core.masking.texts import MASK, without_passwords
from jobbridge.postgres.caller_connection import DriverConnection, cursor_on
from jobbridge.store.jobs.queries import COLUMNS
from jobbridge.store.jobs.rows import JobRow, job_row

#: Where a search stands: it goes on with older jobs than this one.
Position = tuple[datetime, UUID]

#: So many of the first digits of an id lead to it by an index; with fewer there are too many such ids.
PREFIX = 8

OLDER: LiteralString = "(created_at, job_id) < (%(before_at)s, %(before_id)s)"
NEWEST_FIRST: LiteralString = "ORDER BY created_at DESC, job_id DESC"

#: What the index is asked for. No cast: a tenant is text in some databases and a uuid in others.
MINE: LiteralString = " AND tenant = %(tenant)s"
SINCE: LiteralString = " AND created_at >= %(since)s"
UNTIL: LiteralString = " AND created_at < %(until)s"

#: What is asked of each job that was read.
FILTERS: dict[str, LiteralString] = {
    "statuses": "status = ANY(%(statuses)s)",
    "type": "type = %(type)s",
    "engines": "runner_type = ANY(%(engines)s)",
    "queue": "queue = %(queue)s",
    "ended_since": "completed_at >= %(ended_since)s",
    # What of an error is shown is known in Python only: this finds more, of which those are left that `_is_shown`.
    "text": """(
        strpos(lower(coalesce(error, '')), lower(%(fragment)s)) > 0 OR starts_with(job_id::text, lower(%(text)s))
        OR external_id = %(text)s OR task_id = %(text)s OR singleton_key = %(text)s
        OR lower(%(text)s) IN (user_id::text, root_id::text, parent_id::text)
    )""",
    "known_ids": "job_id <> ALL(%(known_ids)s)",
}


def _newest(columns: LiteralString, of: LiteralString, kinds: Sequence[LiteralString]) -> LiteralString:
    """The newest jobs, or of those that have an index (see `rare_ones`), so many of each kind."""
    each: list[LiteralString] = [
        f"(SELECT {columns} FROM public.jobs WHERE {OLDER}{of}{kind} {NEWEST_FIRST} LIMIT %(scan)s)"
        for kind in [f" AND {kind}" for kind in kinds] or [""]
    ]
    return "\n    UNION ALL\n    ".join(each)


def scan(of: LiteralString, kinds: Sequence[LiteralString]) -> LiteralString:
    """The newest jobs, and of them those that match."""
    return f"""
SELECT {COLUMNS}
FROM (
    SELECT {COLUMNS}
    FROM (
    {_newest(COLUMNS, of, kinds)}
    ) AS either
    {NEWEST_FIRST}
    LIMIT %(scan)s
) AS newest
WHERE {{filters}}
{NEWEST_FIRST}
LIMIT %(limit)s
"""


def end_of_scan(of: LiteralString, kinds: Sequence[LiteralString]) -> LiteralString:
    """The last job that `scan` reads; it reads the index only."""
    return f"""
SELECT created_at, job_id
FROM (
    {_newest("created_at, job_id", of, kinds)}
) AS either
{NEWEST_FIRST}
OFFSET %(scan)s - 1
LIMIT 1
"""


def failed(of: LiteralString) -> LiteralString:
    """What failed since then, the latest first."""
    return f"""
SELECT {COLUMNS} FROM public.jobs
WHERE unsuccessful = 'failed' AND completed_at >= %(since)s{of}
ORDER BY completed_at DESC
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
        WHERE external_id = %(text)s AND external_id <> job_id::text{of}
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
        kinds: What leads to all jobs of the statuses that are asked for (see `rare_ones`).
    """

    def __init__(
        self, connection: DriverConnection, values: dict[str, Any], kinds: Sequence[LiteralString]
    ) -> None:
        self._connection = connection
        self._values = {"known_ids": None, "fragment": _fragment(values["text"])} | values
        # Who did not end since then is not looked at.
        ended: LiteralString = " AND completed_at >= %(ended_since)s" if values["ended_since"] else ""
        self._kinds: list[LiteralString] = [f"{kind}{ended}" for kind in kinds]
        self._of_jobs: LiteralString = (MINE if values["tenant"] is not None else "") + (
            SINCE if values["since"] is not None else ""
        )
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
        """Scan the newest jobs; gives those that match, and where the scan ended. None: there were no more.

        Neither tells of jobs that match by what is hidden of their errors only.
        """
        found = self._fetch(scan(self._of_jobs, self._kinds), _from(start))
        shown = self._shown(found)
        if len(shown) >= self.limit:
            return shown, start  # that is all that is wanted: nobody asks where it ended
        rows = self._rows(end_of_scan(self._of_jobs, self._kinds), _from(start))
        end = (rows[0][0], rows[0][1]) if rows else None
        while len(found) >= self.limit and len(shown) < self.limit:  # there may be more before the scan's end
            found = self._fetch(
                scan(self._of_jobs, self._kinds), _from((found[-1].created_at, found[-1].job_id))
            )
            shown += self._shown([row for row in found if end is None or (row.created_at, row.job_id) >= end])
        return (shown[: self.limit], start) if len(shown) >= self.limit else (shown, end)

    def by_ids(self, text: str) -> list[JobRow]:
        """Give some jobs that have that id, whenever they were made."""
        return self._shown(self._fetch(by_ids(self._of_ids), _ids_of(text)))

    def _shown(self, found: list[JobRow]) -> list[JobRow]:
        text: str | None = self._values["text"]
        return found if text is None else [row for row in found if _is_shown(row, text)]

    def _fetch(self, statement: LiteralString, more: dict[str, Any]) -> list[JobRow]:
        used = [sql.SQL(clause) for name, clause in FILTERS.items() if self._values[name] is not None]
        composed = sql.SQL(statement).format(filters=sql.SQL(" AND ").join(used) if used else sql.SQL("true"))
        with cursor_on(self._connection, kwargs_row(job_row)) as cursor:
            # Not prepared: a plan that is made once is one for the usual values, and these are rare ones.
            return cursor.execute(composed, self._values | more, prepare=False).fetchall()

    def _rows(self, statement: LiteralString, more: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, self._values | more, prepare=False).fetchall()


def names_of(engine: Engine | None) -> list[str] | None:
    """Give what rows call an engine."""
    if engine is None:
        return None
    return [engine.value, "pgboss"] if engine is Engine.CELERY else [engine.value]


def _fragment(text: str | None) -> str | None:
    """Give the longest part of a text that is not a mask: an error has that, where it is shown with the text."""
    return None if text is None else max(re.split(f"[{MASK}]+", text), key=len)


def _is_shown(row: JobRow, text: str) -> bool:
    """Whether a text is in what people are shown of a job, and not in what is hidden of its error."""
    lower = text.lower()
    return (
        text in (row.external_id, row.task_id, row.singleton_key)
        or str(row.job_id).startswith(lower)
        or lower in (str(row.user_id), str(row.root_id), str(row.parent_id))
        or lower in without_passwords(row.error).lower()
    )


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

"""Tenants by name, a page at a time, with what each has: it reads the counts (`counts.counts`), and each newest job.

A column that holds tenants is text in some databases and a uuid in others: what is compared with it is never cast, and
goes back to Postgres as it came from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from jobbridge.core.keys import TenantId
from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database


def _names(tables: Sequence[LiteralString], after: LiteralString, text: LiteralString) -> LiteralString:
    each: list[LiteralString] = [
        f"(SELECT tenant FROM public.{table} WHERE true{after}{text} GROUP BY tenant ORDER BY tenant LIMIT %(limit)s)"
        for table in tables
    ]
    return f"""
SELECT page.tenant, concat(page.tenant), newest.created_at
FROM (
    SELECT tenant FROM ({" UNION ".join(each)}) AS known ORDER BY tenant LIMIT %(limit)s
) AS page
LEFT JOIN LATERAL (
    SELECT created_at FROM public.jobs
    WHERE tenant = page.tenant ORDER BY created_at DESC, job_id DESC LIMIT 1
) AS newest ON true
ORDER BY page.tenant
"""


_AFTER: LiteralString = " AND tenant > %(after)s"
_TEXT: LiteralString = " AND strpos(lower(concat(tenant)), lower(%(text)s)) > 0"
_ALL: Sequence[LiteralString] = ("job_counts", "job_count_changes", "job_suspensions")
_SUSPENDED: Sequence[LiteralString] = ("job_suspensions",)

#: Any: with a name before them, and with a text in their name.
NAMES: LiteralString = _names(_ALL, _AFTER, _TEXT)

COUNTS: LiteralString = """
SELECT concat(tenant), status, sum(jobs)::bigint
FROM (
    SELECT tenant, status, jobs FROM public.job_counts WHERE tenant = ANY(%(tenants)s)
    UNION ALL
    SELECT tenant, status, 1 FROM public.job_count_changes WHERE status IS NOT NULL AND tenant = ANY(%(tenants)s)
    UNION ALL
    SELECT tenant, status_before, -1 FROM public.job_count_changes
    WHERE status_before IS NOT NULL AND tenant = ANY(%(tenants)s)
) AS each
GROUP BY 1, 2
HAVING sum(jobs) <> 0
"""

SUSPENSIONS: LiteralString = """
SELECT concat(tenant), suspended_at, reason, suspended_by FROM public.job_suspensions WHERE tenant = ANY(%(tenants)s)
"""


#: Whether jobs are of more than one: the two ends of an index, since a uuid has no `min`. NULL: there are no jobs.
HAVE_SEVERAL: LiteralString = """
SELECT (SELECT tenant FROM public.jobs ORDER BY tenant LIMIT 1)
    <> (SELECT tenant FROM public.jobs ORDER BY tenant DESC LIMIT 1)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantLine:
    """A tenant and what it has.

    Attributes:
        counts: Its jobs; a status that is not in it has none.
        newest_job_at: When its newest job was made; None: it has none.
        suspended_at: Since when it is suspended; None: it is not.
    """

    tenant: TenantId
    counts: Mapping[JobStatus, int]
    newest_job_at: datetime | None
    suspended_at: datetime | None = None
    reason: str | None = None
    suspended_by: str | None = None

    @property
    def jobs(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantPage:
    """Some tenants, by name.

    Attributes:
        next: The last one, if there are more.
    """

    tenants: Sequence[TenantLine]
    next: TenantId | None


class TenantList:
    """Lists tenants.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self,
        *,
        text: str | None = None,
        after: str | None = None,
        only_suspended: bool = False,
        limit: int = 50,
    ) -> TenantPage:
        """Give a page of the tenants that have jobs, had some, or are suspended.

        Args:
            text: Somewhere in the name, in any case of letters.
            after: The `next` of the page before.
            only_suspended: Only those.
            limit: At most so many.
        """
        statement = _names(
            _SUSPENDED if only_suspended else _ALL, _AFTER if after else "", _TEXT if text else ""
        )
        params = {"after": after, "text": text, "limit": limit + 1}

        def work(own: DriverConnection) -> TenantPage:
            rows = own.execute(statement, params).fetchall()
            lines = _lines(own, rows[:limit]) if rows else []
            return TenantPage(tenants=lines, next=lines[-1].tenant if len(rows) > limit else None)

        return self._database.ask(work, otherwise=TenantPage(tenants=[], next=None))

    def several_have_jobs(self) -> bool:
        """Tell whether more than one tenant has jobs."""
        row = self._database.run(lambda own: own.execute(HAVE_SEVERAL).fetchone())
        return bool(row and row[0])


def _lines(
    connection: DriverConnection, rows: Sequence[tuple[Any, str, datetime | None]]
) -> list[TenantLine]:
    params = {"tenants": [tenant for tenant, _, _ in rows]}
    counts: dict[str, dict[JobStatus, int]] = {}
    for name, status, jobs in connection.execute(COUNTS, params).fetchall():
        counts.setdefault(name, {})[JobStatus(status)] = jobs
    suspensions = {name: rest for name, *rest in connection.execute(SUSPENSIONS, params).fetchall()}
    return [
        TenantLine(
            tenant=TenantId(name),
            counts=counts.get(name, {}),
            newest_job_at=newest,
            **dict(zip(("suspended_at", "reason", "suspended_by"), suspensions.get(name, ()), strict=False)),
        )
        for _, name, newest in rows
    ]

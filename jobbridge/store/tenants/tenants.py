"""Tenants: which there are, which are suspended, and how all rows of one are deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import sql

from jobbridge.core.keys import SYSTEM_TENANT, JobKey, TenantId
from jobbridge.errors import UnsupportedOption
from jobbridge.store.counts.counts import BATCH as FOLDED_AT_ONCE
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.schema.conventions import TENANT_TABLES

#: How many rows one statement deletes.
BATCH = 1000

#: Goes from tenant to tenant along the index, and not through the whole table.
LIST: LiteralString = """
WITH RECURSIVE known (tenant) AS (
    (SELECT tenant FROM public.jobs ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT jobs.tenant FROM public.jobs WHERE jobs.tenant > known.tenant ORDER BY jobs.tenant LIMIT 1)
    FROM known WHERE known.tenant IS NOT NULL
)
SELECT coalesce(known.tenant, suspension.tenant)::text AS tenant, newest.created_at AS newest_job_at,
    suspension.suspended_at, suspension.reason, suspension.suspended_by
FROM known
FULL JOIN public.job_suspensions AS suspension ON suspension.tenant = known.tenant
LEFT JOIN LATERAL (
    SELECT jobs.created_at FROM public.jobs
    WHERE jobs.tenant = known.tenant ORDER BY jobs.created_at DESC, jobs.job_id DESC LIMIT 1
) AS newest ON true
WHERE coalesce(known.tenant, suspension.tenant) IS NOT NULL
ORDER BY 1
"""

#: One that is suspended already stays as it is.
SUSPEND: LiteralString = """
INSERT INTO public.job_suspensions (tenant, reason, suspended_by) VALUES (%(tenant)s, %(reason)s, %(suspended_by)s)
ON CONFLICT (tenant) DO NOTHING
"""

RESUME: LiteralString = "DELETE FROM public.job_suspensions WHERE tenant = %(tenant)s"

_SUSPENSION: LiteralString = (
    "SELECT tenant::text, suspended_at, reason, suspended_by FROM public.job_suspensions"
)

SUSPENDED: LiteralString = f"{_SUSPENSION} ORDER BY suspended_at DESC LIMIT %(limit)s"

SUSPENSION: LiteralString = f"{_SUSPENSION} WHERE tenant = %(tenant)s"

#: The next open jobs of a tenant, oldest first.
OPEN_JOBS: LiteralString = """
SELECT created_at, job_id FROM public.jobs
WHERE completed_at IS NULL AND tenant = %(tenant)s AND (created_at, job_id) > (%(after_at)s, %(after_id)s)
ORDER BY created_at, job_id
LIMIT %(limit)s
"""

_DELETE: LiteralString = """
DELETE FROM {table}
WHERE tenant = %(tenant)s AND ctid = ANY (ARRAY(
    SELECT ctid FROM {table} WHERE tenant = %(tenant)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""

_LEFT: LiteralString = "SELECT EXISTS (SELECT FROM {table} WHERE tenant = %(tenant)s)"

#: What others refer to, and then what counts it.
_LAST = ("job_details", "jobs", "job_count_changes", "job_counts", "job_hours", "job_flow")

#: What keeps a purged tenant's jobs from coming back stays.
PURGED = (
    *(table for table in TENANT_TABLES if table not in {"job_suspensions", *_LAST}),
    *_LAST,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """A tenant that has jobs, or is suspended.

    Attributes:
        newest_job_at: When its newest job was made; None: it has none.
        suspended_at: Since when it is suspended; None: it is not.
    """

    tenant: TenantId
    newest_job_at: datetime | None
    suspended_at: datetime | None
    reason: str | None
    suspended_by: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspension:
    """Since when, why and by whom a tenant is suspended."""

    tenant: TenantId
    suspended_at: datetime
    reason: str | None
    suspended_by: str | None


class TenantStore:
    """Reads and suspends tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> Sequence[Tenant]:
        """Give the tenants that have jobs or are suspended."""
        return self._database.run(lambda own: all_rows(own, Tenant, LIST))

    def suspended(self, *, limit: int = 1000) -> Sequence[Suspension]:
        """Give the tenants that are suspended, the latest first."""
        return self._database.run(lambda own: all_rows(own, Suspension, SUSPENDED, {"limit": limit}))

    def suspension(self, tenant: TenantId) -> Suspension | None:
        """Give what is known of a tenant's suspension; None: it is not suspended."""
        params = {"tenant": tenant}
        nothing: list[Suspension] = []
        found = self._database.ask(
            lambda own: all_rows(own, Suspension, SUSPENSION, params), otherwise=nothing
        )
        return found[0] if found else None

    def suspend(
        self, tenant: TenantId, *, reason: str | None = None, suspended_by: str | None = None
    ) -> bool:
        """Keep the tenant's jobs from starting; tells whether that is new.

        Raises:
            UnsupportedOption: It is the system's.
        """
        refuse_system(tenant, "suspended")
        params = {"tenant": tenant, "reason": reason, "suspended_by": suspended_by}
        return self._database.run(lambda own: own.execute(SUSPEND, params).rowcount) > 0

    def resume(self, tenant: TenantId) -> bool:
        """Let its jobs start again; tells whether they could not before."""
        return self._database.run(lambda own: own.execute(RESUME, {"tenant": tenant}).rowcount) > 0

    def open_jobs(self, tenant: TenantId, *, limit: int = 500) -> Iterator[JobKey]:
        """Go over the tenant's jobs that have not ended."""
        after: tuple[Any, UUID] = ("-infinity", UUID(int=0))
        while True:
            params = {"tenant": tenant, "after_at": after[0], "after_id": after[1], "limit": limit}
            rows = self._database.run(lambda own, params=params: own.execute(OPEN_JOBS, params).fetchall())  # type: ignore[misc]  # bound at once
            yield from (JobKey(tenant=tenant, job_id=job_id) for _, job_id in rows)
            if len(rows) < limit:
                return
            after = rows[-1]

    def delete_rows(self, tenant: TenantId, *, batch: int = BATCH) -> dict[str, int]:
        """Delete everything of a tenant, in small bites; gives the number of rows by table.

        Raises:
            UnsupportedOption: It is the system's.
        """
        refuse_system(tenant, "purged")
        deleted = {}
        for table in PURGED:
            if (
                table == "job_count_changes"
            ):  # what they tell of all tenants' totals is not to be lost with them
                counts = CountStore(self._database)
                while counts.fold() >= FOLDED_AT_ONCE:
                    pass
            deleted[table] = self._delete_from(table, tenant, batch)
        return deleted

    def _delete_from(self, table: str, tenant: TenantId, batch: int) -> int:
        name = sql.Identifier("public", table)
        params: dict[str, Any] = {"tenant": tenant, "limit": batch}
        delete, left = sql.SQL(_DELETE).format(table=name), sql.SQL(_LEFT).format(table=name)
        deleted = 0
        while True:
            now = self._database.run(lambda own: own.execute(delete, params).rowcount)
            deleted += now
            if now < batch and not self._database.run(lambda own: own.execute(left, params).fetchall()[0][0]):
                return deleted


def refuse_system(tenant: TenantId, what: str) -> None:
    """Make sure that it is not the system's.

    Raises:
        UnsupportedOption: It is.
    """
    if tenant == SYSTEM_TENANT:
        raise UnsupportedOption(
            f"The tenant {tenant} is the system's, and cannot be {what}.",
            hint="Name the tenant whose jobs must not run.",
        )

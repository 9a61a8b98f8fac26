"""Questions about parents and children, for people and for the sweep."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

from jobbridge.core.fanout import ChildCounts, Member
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.fanout.parent import key_of, member_of, params_of
from jobbridge.store.fetch import all_rows, tuples
from jobbridge.store.statuses import FINAL_STATUSES

_MEMBERS = "parent_tenant = %(tenant)s AND parent_id = %(parent_id)s"

COUNTS: LiteralString = f"""
SELECT status, count(*) FROM public.job_family_members WHERE {_MEMBERS} GROUP BY status
"""

#: Some that did not succeed, with their errors. In two steps on Citus, where a fan-out's children are of many tenants.
UNSUCCESSFUL: LiteralString = """
SELECT member.tenant, member.child_id, member.item_key, member.status, job.error
FROM public.job_family_members AS member
LEFT JOIN public.jobs AS job ON job.tenant = member.tenant AND job.job_id = member.child_id
WHERE member.parent_tenant = %(tenant)s AND member.parent_id = %(parent_id)s
  AND member.status = ANY(%(statuses)s)
ORDER BY member.position
LIMIT %(limit)s
"""

MEMBERS: LiteralString = f"""
SELECT tenant, child_id, item_key, status FROM public.job_family_members
WHERE {_MEMBERS} AND position > %(after)s
ORDER BY position
LIMIT %(limit)s
"""

#: Of a parent that is run again: its children keep their ids.
IDS: LiteralString = f"""
SELECT tenant, item_key, child_id, status FROM public.job_family_members WHERE {_MEMBERS}
"""

IS_PARENT: LiteralString = (
    "SELECT 1 FROM public.job_families WHERE tenant = %(tenant)s AND parent_id = %(parent_id)s"
)

#: Fan-outs in which something could be done that nobody has done for a while, the longest left first. Those with which
#: it does not succeed go behind the others, and one that somebody holds is not neglected.
NEGLECTED: LiteralString = f"""
UPDATE public.job_families AS taken
SET updated_at = clock_timestamp()
FROM (
    SELECT fan_out.tenant, fan_out.parent_id
    FROM public.job_families AS fan_out
    WHERE fan_out.closed_at IS NULL AND fan_out.attempt IS NOT NULL
      AND fan_out.updated_at < clock_timestamp() - %(older_than)s::interval
      AND (fan_out.unfinished = 0
        OR (fan_out.running < fan_out.concurrency AND fan_out.running < fan_out.unfinished)
        OR NOT EXISTS (
            SELECT FROM public.jobs AS parent
            WHERE parent.tenant = fan_out.tenant AND parent.job_id = fan_out.parent_id
              AND parent.status NOT IN ({FINAL_STATUSES})
        ))
    ORDER BY fan_out.updated_at
    LIMIT %(limit)s
    FOR UPDATE OF fan_out SKIP LOCKED
) AS found
WHERE taken.tenant = found.tenant AND taken.parent_id = found.parent_id
RETURNING taken.tenant, taken.parent_id
"""

#: Fan-outs in which nothing has happened for long, and may be only because nobody counted.
QUIET: LiteralString = """
SELECT tenant, parent_id FROM public.job_families
WHERE closed_at IS NULL AND running > 0 AND updated_at < clock_timestamp() - %(older_than)s::interval
ORDER BY updated_at
LIMIT %(limit)s
"""


def ids(connection: DriverConnection, parent: JobKey) -> dict[tuple[TenantId, str], tuple[UUID, str]]:
    """Give the children's job ids and statuses, by tenant and item key."""
    return {
        (TenantId(str(tenant)), item_key): (child_id, status)
        for tenant, item_key, child_id, status in tuples(connection, IDS, params_of(parent))
    }


def counts(connection: DriverConnection, parent: JobKey) -> ChildCounts | None:
    """Count the children by status; None when it is no parent."""
    if not tuples(connection, IS_PARENT, params_of(parent)):
        return None
    return ChildCounts.of(dict(tuples(connection, COUNTS, params_of(parent))))


def unsuccessful(
    connection: DriverConnection, parent: JobKey, statuses: Iterable[str], *, limit: int
) -> list[Member]:
    """Give some children that ended so, in their order."""
    told = {"statuses": list(statuses), "limit": limit}
    return all_rows(connection, member_of, UNSUCCESSFUL, params_of(parent) | told)


def members(
    connection: DriverConnection, parent: JobKey, *, after: int = -1, limit: int = 100
) -> list[Member]:
    """Give children in their order, after the one at that place (0-based)."""
    told = {"after": after, "limit": limit}
    return all_rows(connection, member_of, MEMBERS, params_of(parent) | told)


def neglected(connection: DriverConnection, *, older_than: timedelta, limit: int = 100) -> list[JobKey]:
    """Take fan-outs in which something could be done that nobody has done for so long."""
    return _parents(connection, NEGLECTED, older_than, limit)


def quiet(connection: DriverConnection, *, older_than: timedelta, limit: int = 100) -> list[JobKey]:
    """Give fan-outs that wait for a child, and have heard of none for so long."""
    return _parents(connection, QUIET, older_than, limit)


def _parents(
    connection: DriverConnection, statement: LiteralString, older_than: timedelta, limit: int
) -> list[JobKey]:
    rows = tuples(connection, statement, {"older_than": older_than, "limit": limit})
    return [key_of(tenant, parent_id) for tenant, parent_id in rows]

"""Parents and children: which child may run next, and when a parent goes on.

A fan-out is two numbers and its members. `unfinished` counts the children that have not ended, `running` those of
them that were released to an engine. Whoever changes these numbers holds the fan-out's row: the end of a child does so
within the statement that ends its job (`transitions._COUNTED`), everything else here begins with `LOCK`. Locks are
taken in one order: a child's job, its member, the fan-out, the parent's job.

What if the process dies between two steps?

- Before a child's end is written: nothing happened; the job is delivered again.
- After it, before the next child is released: the numbers say that there is room, and the sweep (`NEGLECTED`) finds it.
- Within a release: row, message and number are one transaction.
- After the last child's end, before the parent is sent: `unfinished` is 0 and `closed_at` empty; the sweep finds it.
- After the parent was sent: it is a job like any other; `closed_at` is of the same transaction.
- A child's job is deleted, or closed by somebody's own SQL: `RECOUNT` sees that after a minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.fanout import Member, MemberStatus
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.fetch import all_rows, first_row, tuples
from jobbridge.store.statuses import FINAL_STATUSES
from jobbridge.store.values import as_jsonb, as_text

_THIS_PARENT = "tenant = %(tenant)s AND parent_id = %(parent_id)s"
_MEMBERS = "parent_tenant = %(tenant)s AND parent_id = %(parent_id)s"

#: A parent that is run again has its fan-out already.
OPEN: LiteralString = """
INSERT INTO public.job_families AS fan_out (tenant, parent_id, task, options, concurrency)
VALUES (%(tenant)s, %(parent_id)s, %(task)s, %(options)s, %(concurrency)s)
ON CONFLICT (tenant, parent_id) DO UPDATE SET
    task = excluded.task, options = excluded.options, concurrency = excluded.concurrency,
    generation = fan_out.generation + 1, closed_at = NULL, updated_at = clock_timestamp()
RETURNING generation
"""

#: Of a parent that is run again: what completed with the same arguments stays so, what is with an engine is counted
#: when it ends, and everything else waits to be run again.
ADD: LiteralString = """
INSERT INTO public.job_family_members AS member
    (tenant, child_id, parent_tenant, parent_id, position, item_key, generation, arguments, status)
SELECT tenant, child_id, parent_tenant, parent_id, position, item_key, generation, arguments, status
FROM json_populate_recordset(NULL::public.job_family_members, %(members)s::json)
ON CONFLICT (tenant, child_id) DO UPDATE SET
    position = excluded.position,
    generation = excluded.generation,
    arguments = excluded.arguments,
    status = CASE WHEN member.status = 'released' THEN 'released'
                  WHEN member.status = 'completed' AND member.arguments = excluded.arguments THEN 'completed'
                  ELSE 'waiting' END
"""

#: Of an earlier run of the parent, and not among its items any more.
DROP_FORMER: LiteralString = f"""
DELETE FROM public.job_family_members
WHERE {_MEMBERS} AND generation < %(generation)s AND status <> 'released'
"""

#: Both numbers from the members.
COUNT: LiteralString = f"""
UPDATE public.job_families AS fan_out
SET total = counted.total, unfinished = counted.unfinished, running = counted.running, updated_at = clock_timestamp()
FROM (
    SELECT count(*) AS total, count(*) FILTER (WHERE status IN ('waiting', 'released')) AS unfinished,
        count(*) FILTER (WHERE status = 'released') AS running
    FROM public.job_family_members
    WHERE {_MEMBERS}
) AS counted
WHERE {_THIS_PARENT}
"""

LOCK: LiteralString = f"""
SELECT task, options, concurrency, total, unfinished, running, attempt, resumption, step_id,
    closed_at IS NOT NULL AS is_closed,
    told_at IS NULL OR told_at < clock_timestamp() - interval '1 second' AS is_report_due
FROM public.job_families
WHERE {_THIS_PARENT}
FOR UPDATE
"""

AWAIT: LiteralString = f"""
UPDATE public.job_families
SET attempt = %(attempt)s, resumption = %(resumption)s, step_id = %(step_id)s, closed_at = NULL, told_at = NULL,
    updated_at = clock_timestamp()
WHERE {_THIS_PARENT}
"""

RELEASE: LiteralString = f"""
WITH chosen AS (
    SELECT tenant, child_id
    FROM public.job_family_members
    WHERE {_MEMBERS} AND status = 'waiting'
    ORDER BY position
    LIMIT %(limit)s
), released AS (
    UPDATE public.job_family_members AS member
    SET status = 'released', ended_at = NULL
    FROM chosen
    WHERE member.tenant = chosen.tenant AND member.child_id = chosen.child_id
    RETURNING member.tenant, member.child_id, member.position, member.item_key, member.arguments
)
SELECT tenant, child_id, item_key, arguments FROM released ORDER BY position
"""

NOTE_RELEASED: LiteralString = f"""
UPDATE public.job_families
SET running = running + %(released)s, updated_at = clock_timestamp(),
    told_at = CASE WHEN %(told)s THEN clock_timestamp() ELSE told_at END
WHERE {_THIS_PARENT}
"""

#: It could not be sent.
FAIL: LiteralString = """
WITH failed AS (
    UPDATE public.job_family_members
    SET status = 'failed', ended_at = clock_timestamp()
    WHERE tenant = %(child_tenant)s AND child_id = %(child_id)s AND status = 'released'
    RETURNING child_id
)
UPDATE public.job_families
SET running = running - 1, unfinished = unfinished - 1
WHERE tenant = %(tenant)s AND parent_id = %(parent_id)s AND EXISTS (SELECT FROM failed)
"""

CLOSE: LiteralString = f"""
UPDATE public.job_families SET closed_at = clock_timestamp(), updated_at = clock_timestamp() WHERE {_THIS_PARENT}
"""

#: Those which are no jobs yet end without having been any.
CANCEL_WAITING: LiteralString = f"""
UPDATE public.job_family_members SET status = 'cancelled', ended_at = clock_timestamp()
WHERE {_MEMBERS} AND status = 'waiting'
"""

RELEASED: LiteralString = f"""
SELECT tenant, child_id FROM public.job_family_members WHERE {_MEMBERS} AND status = 'released'
"""

#: One more generation, so that what is made anew has ids of its own.
ANEW: LiteralString = f"""
UPDATE public.job_families SET generation = generation + 1 WHERE {_THIS_PARENT} RETURNING generation
"""

CANCELLED: LiteralString = f"""
SELECT tenant, child_id, item_key, status FROM public.job_family_members
WHERE {_MEMBERS} AND status = 'cancelled'
"""

RENAME: LiteralString = """
UPDATE public.job_family_members SET child_id = %(new_id)s WHERE tenant = %(tenant)s AND child_id = %(child_id)s
"""

#: What did not complete, to be run again.
RESET: LiteralString = f"""
UPDATE public.job_family_members SET status = 'waiting', ended_at = NULL
WHERE {_MEMBERS} AND status = ANY(%(statuses)s)
"""

#: A child's job that is final, or gone, without its fan-out knowing.
RECOUNT: LiteralString = f"""
UPDATE public.job_family_members AS member
SET status = coalesce(
        (SELECT job.status FROM public.jobs AS job
         WHERE job.tenant = member.tenant AND job.job_id = member.child_id), 'cancelled'),
    ended_at = clock_timestamp()
WHERE {_MEMBERS} AND status = 'released'
  AND NOT EXISTS (
    SELECT FROM public.jobs AS job
    WHERE job.tenant = member.tenant AND job.job_id = member.child_id AND job.status NOT IN ({FINAL_STATUSES})
  )
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class FanOutRow:
    """A fan-out whose row this transaction holds.

    Attributes:
        key: The parent.
        attempt: Of the parent, that waits; None: it has not started.
        resumption: JSON of the message by which the parent goes on.
        is_closed: Nothing is left to do.
        is_telling_due: The parent's progress was not written for a while.
    """

    key: JobKey
    task: str
    options: Mapping[str, Any]
    concurrency: int
    total: int
    unfinished: int
    running: int
    attempt: int | None
    resumption: str | None
    step_id: UUID | None
    is_closed: bool
    is_report_due: bool

    @property
    def room(self) -> int:
        """How many more children may be with an engine."""
        return max(0, min(self.concurrency, self.unfinished) - self.running)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewMember:
    """A child to be.

    Attributes:
        arguments: JSON `[args, kwargs]`.
    """

    key: JobKey
    position: int
    item_key: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasedMember:
    """A child that is to be sent now."""

    key: JobKey
    item_key: str
    arguments: str


def open_fan_out(
    connection: DriverConnection, parent: JobKey, *, task: str, options: Mapping[str, Any], concurrency: int
) -> int:
    """Make a parent's fan-out, or begin it anew, and hold it; gives its generation."""
    told = {"task": task, "options": as_jsonb(dict(options)), "concurrency": concurrency}
    [(generation,)] = tuples(connection, OPEN, params_of(parent) | told)
    return int(generation)


def add(
    connection: DriverConnection, parent: JobKey, members: Sequence[NewMember], *, generation: int
) -> None:
    """Add children to a fan-out, a thousand or so at a time."""
    common = {
        "parent_tenant": parent.tenant,
        "parent_id": str(parent.job_id),
        "generation": generation,
        "status": MemberStatus.WAITING,
    }
    rows = [
        common
        | {
            "tenant": member.key.tenant,
            "child_id": str(member.key.job_id),
            "position": member.position,
            "item_key": as_text(member.item_key),
            "arguments": member.arguments,
        }
        for member in members
    ]
    connection.execute(ADD, {"members": json.dumps(rows)})


def count(connection: DriverConnection, parent: JobKey, *, generation: int | None = None) -> None:
    """Take the numbers from the members; with a generation, after letting go of those of earlier ones."""
    if generation is not None:
        connection.execute(DROP_FORMER, params_of(parent) | {"generation": generation})
    connection.execute(COUNT, params_of(parent))


def lock(connection: DriverConnection, parent: JobKey) -> FanOutRow | None:
    """Hold a fan-out until the transaction ends; None when there is none."""
    return first_row(connection, partial(FanOutRow, key=parent), LOCK, params_of(parent))


def await_children(
    connection: DriverConnection, parent: JobKey, *, attempt: int, resumption: str, step_id: UUID
) -> None:
    """Note which attempt of the parent waits, and how it goes on."""
    told = {"attempt": attempt, "resumption": resumption, "step_id": step_id}
    connection.execute(AWAIT, params_of(parent) | told)


def release(connection: DriverConnection, parent: JobKey, *, limit: int) -> list[ReleasedMember]:
    """Take the next children that wait."""
    rows = tuples(connection, RELEASE, params_of(parent) | {"limit": limit})
    return [
        ReleasedMember(key=key_of(tenant, child_id), item_key=item_key, arguments=arguments)
        for tenant, child_id, item_key, arguments in rows
    ]


def note_released(connection: DriverConnection, parent: JobKey, number: int, *, told: bool) -> None:
    """Count what was sent."""
    connection.execute(NOTE_RELEASED, params_of(parent) | {"released": number, "told": told})


def fail(connection: DriverConnection, parent: JobKey, child: JobKey) -> None:
    """Count a released child as failed that could not be sent."""
    told = {"child_tenant": child.tenant, "child_id": child.job_id}
    connection.execute(FAIL, params_of(parent) | told)


def close(connection: DriverConnection, parent: JobKey) -> None:
    """Note that nothing is left to do."""
    connection.execute(CLOSE, params_of(parent))


def cancel_waiting(connection: DriverConnection, parent: JobKey) -> list[JobKey]:
    """End the children that are no jobs yet; gives those which are, and have not ended."""
    connection.execute(CANCEL_WAITING, params_of(parent))
    count(connection, parent)
    rows = tuples(connection, RELEASED, params_of(parent))
    return [key_of(tenant, child_id) for tenant, child_id in rows]


def cancelled_members(connection: DriverConnection, parent: JobKey) -> tuple[int, list[Member]]:
    """Begin a generation; gives its number, and the children that were cancelled before it."""
    [(generation,)] = tuples(connection, ANEW, params_of(parent))
    return int(generation), all_rows(connection, member_of, CANCELLED, params_of(parent))


def rename(connection: DriverConnection, child: JobKey, new_id: UUID) -> None:
    """Let a child be another job from now on."""
    connection.execute(RENAME, {"tenant": child.tenant, "child_id": child.job_id, "new_id": new_id})


def reset(connection: DriverConnection, parent: JobKey, statuses: Iterable[str]) -> int:
    """Have the children that ended so wait again; gives their number."""
    number = connection.execute(RESET, params_of(parent) | {"statuses": list(statuses)}).rowcount
    count(connection, parent)
    return number


def recount(connection: DriverConnection, parent: JobKey) -> int:
    """Count the children whose end nobody told the fan-out; gives their number."""
    number = connection.execute(RECOUNT, params_of(parent)).rowcount
    count(connection, parent)
    return number


def key_of(tenant: object, job_id: UUID) -> JobKey:
    """Name a job as it is named where tenants are text."""
    return JobKey(tenant=TenantId(str(tenant)), job_id=job_id)


def member_of(*, tenant: object, child_id: UUID, **columns: Any) -> Member:
    """Make a child of its row."""
    return Member(key=key_of(tenant, child_id), **columns)


def params_of(parent: JobKey) -> dict[str, Any]:
    """Name a fan-out as its statements do."""
    return {"tenant": parent.tenant, "parent_id": parent.job_id}

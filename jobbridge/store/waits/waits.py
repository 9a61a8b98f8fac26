"""Who waits for what. A wait and what ends it take the same advisory lock, so whichever comes second sees the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.durable import Kind, Wait
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.locks import CALLS, EVENT
from jobbridge.store.database import Database
from jobbridge.store.fetch import tuples
from jobbridge.store.statuses import FINAL_STATUSES
from jobbridge.store.values import as_jsonb

Json = Any  # what json.loads returns

#: In the order of their keys, as all who take several do.
LOCK_EVENTS: LiteralString = f"""
SELECT pg_advisory_xact_lock(key)
FROM (SELECT DISTINCT {EVENT} AS key FROM unnest(%(whom)s::text[]) AS whom ORDER BY 1) AS sorted
"""

LOCK_CALLS: LiteralString = f"SELECT pg_advisory_xact_lock({CALLS})"

#: The first event that came for a job, or for the key, and was not delivered yet.
TAKE: LiteralString = """
UPDATE public.job_inbox AS event
SET consumed_at = clock_timestamp(), consumed_by = %(job_id)s
WHERE event.tenant = %(tenant)s AND event.event_id = (
    SELECT kept.event_id
    FROM public.job_inbox AS kept
    WHERE kept.tenant = %(tenant)s AND kept.name = %(name)s AND kept.consumed_at IS NULL
      AND (kept.job_id = %(job_id)s OR kept.key = %(key)s)
    ORDER BY kept.sent_at, kept.event_id
    LIMIT 1
)
RETURNING event.event_id, event.payload, event.sent_by, event.key
"""

BEGIN: LiteralString = """
INSERT INTO public.job_waits AS wait (tenant, job_id, kind, name, key, until, pending, step, created_at)
VALUES (
    %(tenant)s, %(job_id)s, %(kind)s, %(name)s, %(key)s, %(until)s, %(pending)s, %(step)s, clock_timestamp()
)
ON CONFLICT (tenant, job_id) DO UPDATE
SET kind = excluded.kind, name = excluded.name, key = excluded.key, until = excluded.until,
    pending = excluded.pending, step = excluded.step,
    created_at = CASE WHEN wait.step = excluded.step THEN wait.created_at ELSE excluded.created_at END
"""

END: LiteralString = "DELETE FROM public.job_waits WHERE tenant = %(tenant)s AND job_id = %(job_id)s"

#: Of called jobs, those that have not ended, or were not sent yet.
COUNT_OPEN: LiteralString = f"""
SELECT count(*)
FROM unnest(%(children)s::uuid[]) AS called (job_id)
LEFT JOIN public.jobs AS job ON job.tenant = %(tenant)s AND job.job_id = called.job_id
WHERE job.job_id IS NULL OR job.status NOT IN ({FINAL_STATUSES})
"""

KNOWN: LiteralString = """
SELECT job_id FROM public.jobs WHERE tenant = %(tenant)s AND job_id = ANY(%(children)s::uuid[])
"""

CALLED: LiteralString = """
UPDATE public.jobs
SET called_by = %(job_id)s
WHERE tenant = %(tenant)s AND job_id = ANY(%(children)s::uuid[])
"""

OPEN_CHILDREN: LiteralString = """
SELECT job_id
FROM public.jobs
WHERE tenant = %(tenant)s AND called_by = %(job_id)s AND completed_at IS NULL
ORDER BY created_at, job_id
"""

#: Callers that ended while jobs that they called have not: cancelled by somebody who does not know of those.
LEFT_OPEN: LiteralString = """
SELECT DISTINCT caller.tenant, caller.job_id, caller.cancelled_by
FROM public.jobs AS called
JOIN public.jobs AS caller ON caller.tenant = called.tenant AND caller.job_id = called.called_by
WHERE called.called_by IS NOT NULL AND called.completed_at IS NULL AND caller.completed_at IS NOT NULL
LIMIT 1000
"""

#: Events that nobody has waited for in all that time.
DELETE_KEPT: LiteralString = """
DELETE FROM public.job_inbox AS event
USING (
    SELECT tenant, event_id
    FROM public.job_inbox
    WHERE consumed_at IS NULL AND sent_at < now() - %(older_than)s::interval
    ORDER BY sent_at
    LIMIT %(limit)s
) AS old
WHERE event.tenant = old.tenant AND event.event_id = old.event_id
"""

SEND_EVENT: LiteralString = """
SELECT jobbridge.send_event(
    name => %(name)s, payload => %(payload)s, job_id => %(job_id)s, key => %(key)s, tenant => %(tenant)s,
    once => %(once)s, sent_by => %(sent_by)s
)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """An event that came.

    Attributes:
        key: Under which it was sent; None: to the job itself.
    """

    event_id: UUID
    payload: Json
    sent_by: str | None
    key: str | None

    @property
    def told(self) -> dict[str, Json]:
        """What a step's metadata say of it."""
        document = {"event": str(self.event_id), "sent_by": self.sent_by, "key": self.key}
        return {name: value for name, value in document.items() if value is not None}


def lock(connection: DriverConnection, job: JobKey, kind: Kind, name: str, key: str | None) -> None:
    """Keep what would end such a wait out until the transaction ends. To be taken before the job's row."""
    if kind is Kind.CALL:
        connection.execute(LOCK_CALLS, {"tenant": job.tenant, "job_id": str(job.job_id)})
        return
    whom = [str(job.job_id)] + ([] if key is None else [f"key {key}"])
    connection.execute(LOCK_EVENTS, {"tenant": job.tenant, "name": name, "whom": whom})


def take_event(connection: DriverConnection, job: JobKey, name: str, key: str | None) -> Event | None:
    """Take the event that came for a job before it waited; None: none did."""
    rows = tuples(connection, TAKE, _params(job) | {"name": name, "key": key})
    return (
        Event(event_id=rows[0][0], payload=rows[0][1], sent_by=rows[0][2], key=rows[0][3]) if rows else None
    )


def begin(
    connection: DriverConnection, job: JobKey, wait: Wait, *, until: datetime | None, pending: int
) -> None:
    """Have a job wait."""
    told = {"kind": wait.kind.value, "name": wait.name, "key": wait.key, "until": until, "step": wait.step}
    connection.execute(BEGIN, _params(job) | told | {"pending": pending})


def end(connection: DriverConnection, job: JobKey) -> None:
    """Have it wait no more."""
    connection.execute(END, _params(job))


def count_open(connection: DriverConnection, job: JobKey, children: Sequence[UUID]) -> int:
    """Count the called jobs that have not ended."""
    [(number,)] = tuples(connection, COUNT_OPEN, {"tenant": job.tenant, "children": list(children)})
    return int(number)


def known(connection: DriverConnection, job: JobKey, children: Sequence[UUID]) -> set[UUID]:
    """Give those of the called jobs that were sent."""
    rows = tuples(connection, KNOWN, {"tenant": job.tenant, "children": list(children)})
    return {row[0] for row in rows}


def note_called(connection: DriverConnection, job: JobKey, children: Sequence[UUID]) -> None:
    """Have the ends of these jobs, sent in this transaction, count at the one that called them."""
    connection.execute(CALLED, _params(job) | {"children": list(children)})


def open_children(connection: DriverConnection, job: JobKey) -> list[UUID]:
    """Give the jobs that a job called and that have not ended."""
    return [row[0] for row in tuples(connection, OPEN_CHILDREN, _params(job))]


def left_open(connection: DriverConnection) -> list[tuple[JobKey, str | None]]:
    """Give the callers that ended before jobs that they called, and who cancelled each."""
    rows = tuples(connection, LEFT_OPEN)
    return [(JobKey(tenant=TenantId(str(tenant)), job_id=job_id), who) for tenant, job_id, who in rows]


def delete_kept(database: Database, *, older_than: timedelta, limit: int) -> int:
    """Delete events that nobody has waited for in that time; gives how many."""
    told = {"older_than": older_than, "limit": limit}
    return int(database.run(lambda own: own.execute(DELETE_KEPT, told).rowcount))


def send_event(
    connection: DriverConnection,
    name: str,
    payload: Json,
    *,
    job_id: UUID | None,
    key: str | None,
    tenant: str | None,
    once: str | None,
    sent_by: str | None,
) -> str:
    """Send an event; gives `delivered`, `kept` or `repeated`.

    Raises:
        psycopg.errors.InvalidParameterValue: The name is none, or there is neither or both of job and key.
    """
    told = {"name": name, "job_id": job_id, "key": key, "tenant": tenant, "once": once, "sent_by": sent_by}
    params = told | {"payload": None if payload is None else as_jsonb(payload)}
    [(outcome,)] = tuples(connection, SEND_EVENT, params)
    return str(outcome)


def _params(job: JobKey) -> dict[str, Any]:
    return {"tenant": job.tenant, "job_id": job.job_id}

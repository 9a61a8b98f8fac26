"""What people ask about waits and events. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from jobbridge.core.keys import JobKey, TenantId
from jobbridge.store.fetch import all_rows, first_row

if TYPE_CHECKING:
    from jobbridge.store.database import Database

_WAIT: LiteralString = """
    wait.tenant::text AS tenant, wait.job_id, wait.kind, wait.name, wait.key, wait.until, wait.pending,
    wait.created_at AS since
"""
_EVENT: LiteralString = """
    event.tenant::text AS tenant, event.event_id, event.job_id, event.key, event.name, event.payload, event.once,
    event.sent_by, event.sent_at, event.consumed_at, event.consumed_by
"""

WAIT_OF: LiteralString = f"""
SELECT {_WAIT} FROM public.job_waits AS wait WHERE wait.tenant = %(tenant)s AND wait.job_id = %(job_id)s
"""

#: Of those that wait for an event; by when they began. Ended by `limit`.
WAITS: LiteralString = f"""
SELECT {_WAIT} FROM public.job_waits AS wait WHERE wait.kind = 'event' ORDER BY wait.created_at LIMIT %(limit)s
"""
WAITS_OF_TENANT: LiteralString = f"""
SELECT {_WAIT} FROM public.job_waits AS wait
WHERE wait.kind = 'event' AND wait.tenant = %(tenant)s
ORDER BY wait.created_at
LIMIT %(limit)s
"""

#: Those that were sent to a job, and those that it took by a key.
EVENTS_OF: LiteralString = f"""
SELECT {_EVENT} FROM public.job_inbox AS event
WHERE event.tenant = %(tenant)s AND (event.job_id = %(job_id)s OR event.consumed_by = %(job_id)s)
ORDER BY event.sent_at, event.event_id
LIMIT %(limit)s
"""
EVENTS: LiteralString = f"""
SELECT {_EVENT} FROM public.job_inbox AS event ORDER BY event.sent_at DESC, event.event_id LIMIT %(limit)s
"""
EVENTS_OF_TENANT: LiteralString = f"""
SELECT {_EVENT} FROM public.job_inbox AS event
WHERE event.tenant = %(tenant)s
ORDER BY event.sent_at DESC, event.event_id
LIMIT %(limit)s
"""
SENT_ONCE: LiteralString = f"""
SELECT {_EVENT} FROM public.job_inbox AS event
WHERE event.tenant = %(tenant)s AND event.name = %(name)s AND event.once = %(once)s
"""

#: A wait whose end is long past, and that nobody has woken.
OVERDUE: LiteralString = f"""
SELECT {_WAIT} FROM public.job_waits AS wait
WHERE wait.until < now() - %(patience)s::interval
ORDER BY wait.until
LIMIT %(limit)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """What a suspended job waits for.

    Attributes:
        kind: `event` or `call`; or `sleep`, of a job that has only a time.
        name: Of the event, or of what is called.
        key: The event may be sent to this key, too, not only to the job.
        until: Then the sleep is over, or the time-out comes; None: it waits on.
        pending: Of a call: so many children have not ended.
        since: When it was suspended.
    """

    tenant: TenantId
    job_id: UUID
    kind: str
    name: str
    key: str | None
    until: datetime | None
    pending: int
    since: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class SentEvent:
    """An event that was sent.

    Attributes:
        job_id: To which job; None: to whoever waits by the key.
        payload: As it is stored.
        once: By what a second send of it is known.
        consumed_at: When a job took it; None: it is kept.
        consumed_by: Which job took it.
    """

    tenant: TenantId
    event_id: UUID
    job_id: UUID | None
    key: str | None
    name: str
    payload: Any
    once: str | None
    sent_by: str | None
    sent_at: datetime
    consumed_at: datetime | None
    consumed_by: UUID | None


class WaitQueries:
    """Looks at waits and events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def wait_of(self, job: JobKey) -> Wait | None:
        """Give what a job waits for; None: it is not suspended."""
        params = {"tenant": job.tenant, "job_id": job.job_id}
        return self._database.run(lambda own: first_row(own, Wait, WAIT_OF, params))

    def waits(self, tenant: TenantId | None = None, *, limit: int = 100) -> list[Wait]:
        """Give the jobs that wait for events, the longest one first: all, or a tenant's."""
        statement = WAITS if tenant is None else WAITS_OF_TENANT
        params = {"tenant": tenant, "limit": limit}
        return self._database.run(lambda own: all_rows(own, Wait, statement, params))

    def events_of(self, job: JobKey, *, limit: int = 100) -> list[SentEvent]:
        """Give the events that were sent to a job or taken by it, the oldest one first."""
        params = {"tenant": job.tenant, "job_id": job.job_id, "limit": limit}
        return self._database.run(lambda own: all_rows(own, SentEvent, EVENTS_OF, params))

    def events(self, tenant: TenantId | None = None, *, limit: int = 100) -> list[SentEvent]:
        """Give the newest events: all, or a tenant's."""
        statement = EVENTS if tenant is None else EVENTS_OF_TENANT
        params = {"tenant": tenant, "limit": limit}
        return self._database.run(lambda own: all_rows(own, SentEvent, statement, params))

    def sent_once(self, tenant: TenantId, name: str, once: str) -> SentEvent | None:
        """Give the event that was sent by that mark; None: none was yet."""
        params = {"tenant": tenant, "name": name, "once": once}
        return self._database.run(lambda own: first_row(own, SentEvent, SENT_ONCE, params))

    def overdue(self, patience: Any, *, limit: int = 20) -> list[Wait]:
        """Give waits whose end is longer past than that, the oldest one first."""
        params = {"patience": patience, "limit": limit}
        return self._database.run(lambda own: all_rows(own, Wait, OVERDUE, params))

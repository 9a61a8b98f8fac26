"""Sending events to jobs: what callers use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.app.errors import sending
from jobbridge.app.execute.tenancy import inherited_tenant
from jobbridge.core.keys import job_id_for
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


@sending()
def send_event(
    app: Celery,
    name: str,
    payload: Any = None,
    *,
    job_id: UUID | str | None = None,
    key: str | None = None,
    tenant: str | None = None,
    once: str | None = None,
    sent_by: str | None = None,
) -> str:
    """Send an event to a job, or to whoever waits for a key; within `app.transaction(...)` as a part of that.

    Args:
        name: As `ctx.wait_for` has it.
        payload: JSON; what `wait_for` gives.
        job_id: The job; or:
        key: What a job waits for by `ctx.wait_for(name, key=...)`.
        tenant: Whose; else that of the job, for a key the current one.
        once: Your own id of the event: sent again with it, it is not delivered again.
        sent_by: Who sends it, for people.

    Returns:
        `delivered` to a job that waits; `kept` for one that will; `repeated`: it was sent before, by its `once`.

    Raises:
        UnsupportedOption: There is neither or both of job and key, or the name or the payload is none.
        DatabaseUnavailable: Postgres cannot be reached. Safe to retry with `once`.
    """
    if (job_id is None) == (key is None):
        raise UnsupportedOption(
            f"The event {name!r} names {'neither' if key is None else 'both'} a job and a key.",
            hint="Pass job_id=..., or key=...",
        )
    if tenant is None and key is not None:
        tenant = inherited_tenant()
    return app.durable.send_event(
        name,
        payload,
        job_id=None if job_id is None else job_id_for(str(job_id)),
        key=key,
        tenant=None if tenant is None else tenant_named(str(tenant)),
        once=once,
        sent_by=sent_by,
    )

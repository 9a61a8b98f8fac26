"""Events for jobs, by the app that is meant when none is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.runners.apps import current_app

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def send_event(
    name: str,
    payload: Any = None,
    *,
    job_id: UUID | str | None = None,
    key: str | None = None,
    tenant: str | None = None,
    once: str | None = None,
    sent_by: str | None = None,
    app: Celery | None = None,
) -> str:
    """Send an event to a job, or to whoever waits for a key; see `Celery.send_event`."""
    return (app or current_app()).send_event(
        name, payload, job_id=job_id, key=key, tenant=tenant, once=once, sent_by=sent_by
    )

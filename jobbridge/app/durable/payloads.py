"""Payloads of events, for people: opened where they are encrypted and the key is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobbridge.core.keys import JobKey
from jobbridge.errors import EncryptionError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.waits.queries import SentEvent

#: What is shown in the place of what cannot be read here.
CLOSED = "(encrypted)"


def payload_of(app: Celery, event: SentEvent) -> Any:
    """Give the payload of an event; `CLOSED` if it is encrypted, and the key is not here."""
    if event.payload is None or not app.database.codec:
        return event.payload
    whose = event.job_id or event.consumed_by or event.event_id
    try:
        return app.durable.open_payload(event.payload, JobKey(tenant=event.tenant, job_id=whose), event.name)
    except EncryptionError:
        return CLOSED

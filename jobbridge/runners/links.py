"""Links to answer what a job waits for, of the app that is meant when none is named."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from jobbridge.app.durable import links
from jobbridge.core.signed.event_links import CHOICES, LASTS
from jobbridge.runners.apps import current_app

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def event_link(
    job_id: UUID | str,
    name: str,
    *,
    expires_in: timedelta = LASTS,
    choices: Sequence[str] = CHOICES,
    tenant: str | None = None,
    app: Celery | None = None,
) -> str:
    """Make a link to a page on which somebody answers, once, what a job waits for; see `Celery.event_link`."""
    return links.event_link(
        app or current_app(), job_id, name, expires_in=expires_in, choices=choices, tenant=tenant
    )

"""Events that people send to jobs: from the job's page, and by the API. Each is on record."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.dashboard.access import bodies
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule
from jobbridge.dashboard.actions.jobs import job_path
from jobbridge.dashboard.errors import refusal
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobRow


def send_to_job(
    context: RequestContext,
    row: JobRow,
    name: str,
    payload: Any,
    *,
    once: str | None = None,
) -> str:
    """Send an event to a job, on record; gives what came of it: delivered, kept or repeated.

    Raises:
        HTTPException: The job has ended, or the event cannot be sent.
    """
    note = partial(context.note, "send event", job=row.key)
    if row.status.is_final:
        note(outcome="refused", reason="the job has ended", details={"event": name})
        raise HTTPException(409, f"{row.type} {row.job_id} is {row.status.value}, and takes no events.")
    try:
        outcome: str = context.app.send_event(
            name,
            payload,
            job_id=row.job_id,
            tenant=row.tenant,
            once=once,
            sent_by=context.principal.name,
        )
    except (JobBridgeError, OperationalError) as error:
        refused = refusal(error)
        note(outcome="refused", reason=refused.detail, details={"event": name})
        raise refused from error
    note(outcome=outcome, details={"event": name})
    return outcome


def send_by_key(
    context: RequestContext,
    key: str,
    name: str,
    payload: Any,
    *,
    tenant: TenantId | None,
    once: str | None = None,
) -> str:
    """Send an event to whoever waits for it by a key, now or later, on record; gives what came of it.

    Raises:
        HTTPException: It cannot be sent.
    """
    note = partial(context.note, "send event", tenant=tenant, subject=key)
    try:
        outcome: str = context.app.send_event(
            name, payload, key=key, tenant=tenant, once=once, sent_by=context.principal.name
        )
    except (JobBridgeError, OperationalError) as error:
        refused = refusal(error)
        note(outcome="refused", reason=refused.detail, details={"event": name})
        raise refused from error
    note(outcome=outcome, details={"event": name})
    return outcome


def send_event(context: RequestContext) -> Response:
    """Send the event that a job waits for, and show the job."""
    row, form = context.find_job(), context.form
    payload = _payload(form.get("payload", ""))
    send_to_job(context, row, form.get("name", ""), payload)
    return RedirectResponse(job_path(context, str(row.job_id), row.tenant), status_code=303)


def _payload(text: str) -> Any:
    """Read what was typed: JSON, or nothing."""
    if not text.strip():
        return None
    try:
        payload = json.loads(text)
        bodies.check(payload)
    except bodies.Unreadable:
        raise
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"The payload is no JSON: {error}.") from None
    return payload


RULES = (Rule("/jobs/{job_id}/events", "send_event", send_event, Role.OPERATOR, methods=POST),)

"""What people do to jobs. Each action is on record, also one that came to nothing."""

from __future__ import annotations

from functools import partial

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.dashboard.visits import Rule, Visit
from jobbridge.errors import JobBridgeError


def cancel(visit: Visit) -> Response:
    """Cancel a job, and show it."""
    row, reason = visit.find_job(), visit.form.get("reason") or None
    was_cancelled = visit.app.cancel_job(
        row.job_id, row.tenant, reason=reason, cancelled_by=visit.principal.name
    )
    outcome = "done" if was_cancelled else "ended before"
    visit.dashboard.access.note(
        visit.principal, "cancel", outcome=outcome, tenant=row.tenant, subject=str(row.job_id), reason=reason
    )
    return RedirectResponse(job_path(visit, str(row.job_id), row.tenant), status_code=303)


def retry(visit: Visit) -> Response:
    """Run a job again, and show it."""
    row, as_new = visit.find_job(), visit.form.get("as_new") == "yes"
    action = "run again" if as_new else "retry"
    note = partial(visit.dashboard.access.note, visit.principal, tenant=row.tenant, subject=str(row.job_id))
    try:
        sent = visit.app.retry_job(row.job_id, row.tenant, as_new=as_new)
    except JobBridgeError as error:
        note(action, outcome="refused", reason=str(error))
        raise HTTPException(409, f"{error} {error.hint}".strip()) from error
    note(action, details={"sent": str(sent.job_id)})
    return RedirectResponse(job_path(visit, str(sent.job_id), sent.tenant), status_code=303)


def job_path(visit: Visit, job_id: str, tenant: str) -> str:
    """Give the address of a job's page."""
    query = None if visit.principal.tenant is not None else {"tenant": tenant}
    return visit.path("job", job_id=job_id, query=query)


RULES = (
    Rule(
        path="/jobs/{job_id}/cancel", name="cancel", endpoint=cancel, needs=Role.OPERATOR, methods=("POST",)
    ),
    Rule(path="/jobs/{job_id}/retry", name="retry", endpoint=retry, needs=Role.OPERATOR, methods=("POST",)),
)

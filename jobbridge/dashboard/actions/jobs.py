"""What people do to a job. Each action is on record, also one that came to nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import Rule, Visit
from jobbridge.dashboard.actions import edit as editing
from jobbridge.dashboard.actions.allowed_actions import possible
from jobbridge.dashboard.errors import refusal
from jobbridge.dashboard.views.formats import as_json
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobRow


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
    except (JobBridgeError, OperationalError) as error:
        refused = refusal(error)
        note(action, outcome="refused", reason=refused.detail)
        raise refused from error
    note(action, details={"sent": str(sent.job_id)})
    return RedirectResponse(job_path(visit, str(sent.job_id), sent.tenant), status_code=303)


def edit(visit: Visit) -> Response:
    """Show the form in which a job's data can be changed before it runs again."""
    row = visit.find_job()
    return _form(visit, row, text=as_json(_data(visit, row)))


def run_edited(visit: Visit) -> Response:
    """Send a new job like this one, with other data; if the data does not fit, show what is wrong with it."""
    row, text = visit.find_job(), visit.form.get("data", "")
    note = partial(visit.dashboard.access.note, visit.principal, tenant=row.tenant, subject=str(row.job_id))
    try:
        if len(text) > editing.LONGEST:
            raise editing.NotJson(f"That is longer than {editing.LONGEST:,} characters.")
        data = editing.read(text, _data(visit, row))
    except (editing.NotJson, editing.SecretMissing) as error:
        return _form(visit, row, text=text, problem=str(error))
    except HTTPException as error:
        note("run edited", outcome="refused", reason=error.detail)
        raise
    if visit.names_another_tenant(data):
        note("run edited", outcome="refused", reason="the data names another tenant")
        return _form(visit, row, text=text, problem="The data names another tenant than yours.")
    try:
        sent = _send_like(visit, row, data)
    except (TypeError, ValueError) as error:  # arguments that the function does not take
        note("run edited", outcome="refused", reason=str(error))
        return _form(visit, row, text=text, problem=str(error))
    except (JobBridgeError, OperationalError) as error:
        refused = refusal(error)
        note("run edited", outcome="refused", reason=refused.detail)
        return _form(visit, row, text=text, problem=f"{refused.detail} {refused.hint}".strip())
    note("run edited", details={"sent": str(sent.job_id)})
    return RedirectResponse(job_path(visit, str(sent.job_id), row.tenant), status_code=303)


def _send_like(visit: Visit, row: JobRow, data: Any) -> Any:
    metadata = {name: value for name, value in row.metadata.items() if name not in {"data", "schedule"}}
    return visit.app.enqueue(
        row.type,
        data,
        tenant=row.tenant,
        engine=row.runner_type,
        queue=row.queue,
        priority=row.priority or None,
        user_id=row.user_id,
        metadata={**metadata, "retry_of": str(row.job_id)},
    )


def _data(visit: Visit, row: JobRow) -> Any:
    if not possible(visit, row).edit:
        raise HTTPException(
            409,
            f"{row.type} {row.job_id} cannot be run with other data: it has not ended, or its arguments are not in its "
            "row.",
        )
    return row.metadata["data"]


def _form(visit: Visit, row: JobRow, *, text: str, problem: str = "") -> Response:
    query = None if visit.principal.tenant is not None else {"tenant": row.tenant}
    return visit.dashboard.page(
        visit,
        "edit.html",
        status=422 if problem else 200,
        job=row,
        text=text,
        problem=problem,
        query=query,
    )


def job_path(visit: Visit, job_id: str, tenant: str) -> str:
    """Give the address of a job's page."""
    query = None if visit.principal.tenant is not None else {"tenant": tenant}
    return visit.path("job", job_id=job_id, query=query)


RULES = (
    Rule(
        path="/jobs/{job_id}/cancel", name="cancel", endpoint=cancel, needs=Role.OPERATOR, methods=("POST",)
    ),
    Rule(path="/jobs/{job_id}/retry", name="retry", endpoint=retry, needs=Role.OPERATOR, methods=("POST",)),
    Rule(path="/jobs/{job_id}/edit", name="edit", endpoint=edit, needs=Role.OPERATOR),
    Rule(
        path="/jobs/{job_id}/edit",
        name="run_edited",
        endpoint=run_edited,
        needs=Role.OPERATOR,
        methods=("POST",),
        form_limit=256 * 1024,
    ),
)

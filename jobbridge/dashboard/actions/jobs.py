"""What people do to a job. Each action is on record, also one that came to nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.codec.rows import open_job
from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule
from jobbridge.dashboard.actions.allowed_actions import possible
from jobbridge.dashboard.actions.edit import LONGEST, NotJson, SecretMissing, read
from jobbridge.dashboard.errors import refusal
from jobbridge.dashboard.views.formats import as_json
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobRow


def cancel_job(context: RequestContext, row: JobRow, reason: str | None) -> bool:
    """Cancel a job, on record; False: it had ended before."""
    is_done: bool = context.app.cancel_job(
        row.job_id, row.tenant, reason=reason, cancelled_by=context.principal.name
    )
    context.note("cancel", job=row.key, outcome="done" if is_done else "ended before", reason=reason)
    return is_done


def retry_job(
    context: RequestContext,
    row: JobRow,
    *,
    as_new: bool,
    from_step: str | None = None,
    hint: str | None = None,
) -> JobRow:
    """Run a job again, whole or from a step on, on record; gives the job that was sent.

    Raises:
        HTTPException: It cannot be; `hint` says what to do instead.
    """
    note = partial(context.note, "run again" if as_new else "retry", job=row.key)
    try:
        sent = context.app.retry_job(row.job_id, row.tenant, as_new=as_new, from_step=from_step)
    except (JobBridgeError, OperationalError) as error:
        refused = refusal(error, hint=hint)
        note(outcome="refused", reason=refused.detail)
        raise refused from error
    note(details={"sent": str(sent.job_id), **({} if from_step is None else {"from_step": from_step})})
    return sent


def wake_job(context: RequestContext, row: JobRow) -> bool:
    """Have a job that sleeps go on, on record; False: it does not sleep.

    Raises:
        HTTPException: It cannot be.
    """
    note = partial(context.note, "wake", job=row.key)
    try:
        is_done: bool = context.app.wake_job(row.job_id, row.tenant, woken_by=context.principal.name)
    except (JobBridgeError, OperationalError) as error:
        refused = refusal(error)
        note(outcome="refused", reason=refused.detail)
        raise refused from error
    note(outcome="done" if is_done else "does not sleep")
    return is_done


def cancel(context: RequestContext) -> Response:
    """Cancel a job, and show it."""
    row = context.find_job()
    cancel_job(context, row, context.form.get("reason") or None)
    return RedirectResponse(job_path(context, str(row.job_id), row.tenant), status_code=303)


def retry(context: RequestContext) -> Response:
    """Run a job again, and show it."""
    form = context.form
    as_new, from_step = form.get("as_new") == "yes", form.get("from_step") or None
    sent = retry_job(context, context.find_job(), as_new=as_new, from_step=from_step)
    return RedirectResponse(job_path(context, str(sent.job_id), sent.tenant), status_code=303)


def wake(context: RequestContext) -> Response:
    """Have a job go on that sleeps, and show it."""
    row = context.find_job()
    wake_job(context, row)
    return RedirectResponse(job_path(context, str(row.job_id), row.tenant), status_code=303)


def edit(context: RequestContext) -> Response:
    """Show the form in which a job's data can be changed before it runs again."""
    row = context.find_job()
    return _form(context, row, text=as_json(_data(context, row)))


def run_edited(context: RequestContext) -> Response:
    """Send a new job like this one, with other data; if the data does not fit, show what is wrong with it."""
    row, text = context.find_job(), context.form.get("data", "")
    note = partial(context.note, job=row.key)
    try:
        if len(text) > LONGEST:
            raise NotJson(f"That is longer than {LONGEST:,} characters.")
        data = read(text, _data(context, row))
    except (NotJson, SecretMissing) as error:
        return _form(context, row, text=text, problem=str(error))
    except HTTPException as error:
        note("run edited", outcome="refused", reason=error.detail)
        raise
    if context.names_another_tenant(data):
        note("run edited", outcome="refused", reason="the data names another tenant")
        return _form(context, row, text=text, problem="The data names another tenant than yours.")
    try:
        sent = _send_like(context, row, data)
    except (TypeError, ValueError) as error:  # arguments that the function does not take
        note("run edited", outcome="refused", reason=str(error))
        return _form(context, row, text=text, problem=str(error))
    except (JobBridgeError, OperationalError) as error:
        refused = refusal(error)
        note("run edited", outcome="refused", reason=refused.detail)
        return _form(context, row, text=text, problem=f"{refused.detail} {refused.hint}".strip())
    note("run edited", details={"sent": str(sent.job_id)})
    return RedirectResponse(job_path(context, str(sent.job_id), row.tenant), status_code=303)


def _send_like(context: RequestContext, row: JobRow, data: Any) -> Any:
    metadata = {name: value for name, value in row.metadata.items() if name not in {"data", "schedule"}}
    return context.app.enqueue(
        row.type,
        data,
        tenant=row.tenant,
        engine=row.runner_type,
        queue=row.queue,
        priority=row.priority or None,
        user_id=row.user_id,
        metadata={**metadata, "retry_of": str(row.job_id)},
    )


def _data(context: RequestContext, row: JobRow) -> Any:
    if not possible(context, row).edit:
        raise HTTPException(
            409,
            f"{row.type} {row.job_id} cannot be run with other data: it has not ended, or its arguments are not in its "
            "row.",
        )
    return open_job(context.app.database.codec, row).metadata["data"]  # or raises: it is encrypted


def _form(context: RequestContext, row: JobRow, *, text: str, problem: str = "") -> Response:
    return context.dashboard.page(
        context,
        "edit.html",
        status=422 if problem else 200,
        job=row,
        text=text,
        problem=problem,
        query=context.of_tenant(row.tenant),
    )


def job_path(context: RequestContext, job_id: str, tenant: str) -> str:
    """Give the address of a job's page."""
    return context.path("job", job_id=job_id, query=context.of_tenant(tenant))


RULES = (
    Rule("/jobs/{job_id}/cancel", "cancel", cancel, Role.OPERATOR, methods=POST),
    Rule("/jobs/{job_id}/retry", "retry", retry, Role.OPERATOR, methods=POST),
    Rule("/jobs/{job_id}/wake", "wake", wake, Role.OPERATOR, methods=POST),
    Rule("/jobs/{job_id}/edit", "edit", edit, Role.OPERATOR),
    Rule("/jobs/{job_id}/edit", "run_edited", run_edited, Role.OPERATOR, methods=POST, form_limit=256 * 1024),
)

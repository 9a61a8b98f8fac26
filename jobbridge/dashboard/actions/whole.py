"""What people do to a whole: to all jobs of a chain, a group, a chord, whichever of them they look at; and to a batch.

Each job is cancelled or run again as by itself, and each is on record. A request works for some seconds; what is left
is there to be gone on with.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID

from kombu.exceptions import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.status import OPEN
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule
from jobbridge.dashboard.actions.allowed_actions import RETRYABLE
from jobbridge.dashboard.actions.jobs import job_path
from jobbridge.errors import BatchNotFound, JobBridgeError
from jobbridge.store.batches.progress import BATCH
from jobbridge.store.fanout.graph import of_whole

if TYPE_CHECKING:
    from jobbridge.core.keys import JobKey
    from jobbridge.store.jobs.rows import JobRow

#: Seconds that one request works.
SECONDS = 10.0
_PORTION = 200
#: While it is cancelled, what runs may end, and send what follows: it is looked for so often.
_LOOKS = 20


def cancel_whole(context: RequestContext) -> Response:
    """Cancel all that has not ended, and show the job."""
    row, reason = context.find_job(), context.form.get("reason", "").strip() or None
    until, outcomes = time.monotonic() + SECONDS, Counter[str]()
    for _ in range(_LOOKS):
        found = of_whole(context.app.database, row, sorted(OPEN), limit=_PORTION)
        for key in found:
            if time.monotonic() < until:
                outcomes[_cancel(context, key, reason)] += 1
        if not found or time.monotonic() >= until:
            break
    return _done(context, "cancel whole", row, outcomes, reason)


def _cancel(context: RequestContext, key: JobKey, reason: str | None) -> str:
    by = context.principal.name
    is_done = context.app.cancel_job(key.job_id, key.tenant, reason=reason, cancelled_by=by)
    outcome = "done" if is_done else "ended before"
    context.note("cancel", job=key, outcome=outcome, reason=reason)
    return outcome


def retry_whole(context: RequestContext) -> Response:
    """Run all again that did not complete, and show the job."""
    row, until, outcomes = context.find_job(), time.monotonic() + SECONDS, Counter[str]()
    for key in of_whole(context.app.database, row, sorted(RETRYABLE)):
        if time.monotonic() >= until:
            break
        outcomes[_retry(context, key)] += 1
    return _done(context, "retry whole", row, outcomes, None)


def _retry(context: RequestContext, key: JobKey) -> str:
    try:
        context.app.retry_job(key.job_id, key.tenant)
    except (JobBridgeError, OperationalError) as error:
        context.note("retry", job=key, outcome="refused", reason=str(error))
        return "refused"
    context.note("retry", job=key)
    return "done"


def _done(
    context: RequestContext, action: str, row: JobRow, outcomes: Counter[str], reason: str | None
) -> Response:
    context.note(action, job=row.key, reason=reason, details=dict(outcomes))
    return RedirectResponse(job_path(context, str(row.job_id), row.tenant), status_code=303)


def cancel_batch(context: RequestContext) -> Response:
    """Cancel the batch of a job, and show the job."""
    row, reason = context.find_job(), context.form.get("reason", "").strip() or None
    told = row.metadata.get(BATCH)
    try:
        if told is None:
            raise BatchNotFound(f"The job {row.job_id} is of no batch.")
        batch = context.app.batches.progress(UUID(str(told)))
        if not context.principal.sees(batch.tenant):
            raise BatchNotFound.with_id(str(batch.id))
    except (BatchNotFound, ValueError) as error:
        context.note("cancel batch", job=row.key, outcome="refused", reason=str(error))
        raise HTTPException(404, str(error)) from error
    is_new = context.app.batches.cancel(batch.id, reason=reason, cancelled_by=context.principal.name)
    outcome = "done" if is_new else "ended before"
    context.note("cancel batch", tenant=batch.tenant, subject=str(batch.id), outcome=outcome, reason=reason)
    return RedirectResponse(job_path(context, str(row.job_id), row.tenant), status_code=303)


RULES = (
    Rule("/jobs/{job_id}/whole/cancel", "cancel_whole", cancel_whole, Role.OPERATOR, methods=POST),
    Rule("/jobs/{job_id}/whole/retry", "retry_whole", retry_whole, Role.OPERATOR, methods=POST),
    Rule("/jobs/{job_id}/batch/cancel", "cancel_batch", cancel_batch, Role.OPERATOR, methods=POST),
)

"""What a customer sees of a job by a link: a word, how far it is, and when. No names, no data, no errors.

A link that is mistyped, made up, expired or revoked, and one whose job is gone: the answer and the work are the same.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from jobbridge.core.status import JobStatus
from jobbridge.dashboard.access.rate_limits import address_of
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.dashboard.views.formats import exact

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobRow

#: Eleven words of ours are five of theirs.
WORDS = {
    JobStatus.PENDING: "waiting",
    JobStatus.QUEUED: "waiting",
    JobStatus.SCHEDULED: "waiting",
    JobStatus.RETRYING: "running",
    JobStatus.WAITING: "running",
    JobStatus.PROCESSING: "running",
    JobStatus.COMPLETED: "done",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.EXPIRED: "cancelled",
    JobStatus.SKIPPED: "cancelled",
}


def public_job(context: RequestContext) -> Response:
    """Show how far a job is."""
    address = address_of(context.request.client.host if context.request.client is not None else "")
    if not context.dashboard.looks.allows(address, now=time.monotonic()):
        raise HTTPException(429, "Too many requests. Wait a minute.", {"Retry-After": "60"})
    row = context.dashboard.links.find(str(context.request.path_params["link"]))
    if row is None:
        raise HTTPException(404, "This link is of no use: it is mistyped, or its time is over.")
    told = _told(row)
    if "text/html" in context.request.headers.get("accept", ""):
        return context.dashboard.page(context, "public_job.html", told=told, is_over=row.status.is_final)
    return JSONResponse(
        {name: exact(value) or None if isinstance(value, datetime) else value for name, value in told.items()}
    )


def _told(row: JobRow) -> dict[str, Any]:
    is_done = row.status is JobStatus.COMPLETED
    # One that sleeps has begun; a job that was not yet due has not.
    is_asleep = row.status is JobStatus.SCHEDULED and row.started_at is not None
    return {
        "status": "running" if is_asleep else WORDS[row.status],
        "progress": 100 if is_done else None if row.progress is None else int(row.progress),
        "asked_at": row.created_at,
        "began_at": row.started_at,
        "ended_at": row.completed_at,
    }


RULES = (Rule("/public/jobs/{link}", "public_job", public_job, None),)

"""Jobs: list, look at, cancel, run again, count."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.dashboard.access.bodies import STORABLE
from jobbridge.dashboard.access.request_context import POST
from jobbridge.dashboard.actions import jobs as actions
from jobbridge.dashboard.api.documents.responses import (
    Cancelled,
    Count,
    Counts,
    Exact,
    Job,
    JobDetail,
    JobPage,
    Woken,
)
from jobbridge.dashboard.api.documents.serializers import job_answer, job_answers, job_detail
from jobbridge.dashboard.api.documents.timestamps import FilterInstant
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked
from jobbridge.dashboard.views import filters

_AS_NEW = 'Send {"as_new": true} to run it as a job of its own.'
Word = Annotated[str | None, Query(max_length=255)]


class CancelJob(Exact):
    """Why."""

    reason: str | None = Field(
        None, max_length=1000, examples=["wrong month"], json_schema_extra={**STORABLE}
    )


class RetryJob(Exact):
    """How."""

    as_new: bool = Field(False, description="As a job of its own: any job that has ended can be.")
    from_step: str | None = Field(
        None,
        max_length=1000,
        json_schema_extra={**STORABLE},
        description="Make this step and what was recorded after it again; also of a job that completed.",
    )


def list_jobs(
    context: Asked,
    status: Annotated[list[JobStatus] | None, Query()] = None,
    type: Word = None,
    engine: Engine | None = None,
    queue: Word = None,
    since: Annotated[
        Literal["1h", "24h", "7d", "30d"] | None, Query(description="Created since then.")
    ] = None,
    begin: Annotated[
        FilterInstant | None, Query(alias="from", description="Created then or later; without a zone: UTC.")
    ] = None,
    end: Annotated[
        FilterInstant | None, Query(alias="to", description="Created before then; without a zone: UTC.")
    ] = None,
    text: Annotated[str | None, Query(max_length=255, description="In the error; or an id.")] = None,
    before: Annotated[
        str | None,
        Query(
            pattern=r"^[0-9]{1,16}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="A page's `next`."
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=filters.MOST)] = filters.LIMIT,
) -> JobPage:
    """Give a page of the jobs that match, the newest first.

    Pages go on from each other, also while jobs are made.
    """
    query = context.request.query_params
    page = context.dashboard.monitor.page(
        filters.search_of(query, context.tenant), before=filters.position_of(query), limit=limit
    )
    return JobPage(
        jobs=job_answers(context, page.jobs),
        next=filters.position_text(page.next),
        searched_to=page.searched_to,
    )


def get_job(context: Asked, job_id: str) -> JobDetail:
    """Give one job with its data, result and steps."""
    return job_detail(context, context.find_job())


def cancel_job(context: Asked, job_id: str, asked: CancelJob | None = None) -> Cancelled:
    """Cancel a job, waiting or running.

    From then on it cannot complete, whatever its engine still does.
    """
    row, reason = context.find_job(), asked.reason if asked else None
    was_cancelled = actions.cancel_job(context, row, reason)
    return Cancelled(cancelled=was_cancelled, job=job_answer(context, context.app.jobs.get(row.key) or row))


def retry_job(context: Asked, job_id: str, asked: RetryJob | None = None) -> Job:
    """Run a job again that failed, expired or was skipped; gives the job that was sent."""
    row, asked = context.find_job(), asked or RetryJob.model_validate({})
    is_whole = not asked.as_new and asked.from_step is None
    hint = _AS_NEW if is_whole and row.status in FINAL else None
    sent = actions.retry_job(context, row, as_new=asked.as_new, from_step=asked.from_step, hint=hint)
    return job_answer(context, sent)


def wake_job(context: Asked, job_id: str) -> Woken:
    """Have a job that sleeps go on now."""
    row = context.find_job()
    was_woken = actions.wake_job(context, row)
    return Woken(woken=was_woken, job=job_answer(context, context.app.jobs.get(row.key) or row))


def count_jobs(context: Asked) -> Counts:
    """Count all jobs, exactly."""
    totals = context.dashboard.counts.totals(context.tenant)
    return Counts(
        counts=[
            Count(engine=engine, status=status, jobs=jobs)
            for (engine, status), jobs in sorted(totals.items())
            if jobs
        ]
    )


_JOB = f"{PREFIX}/jobs/{{job_id}}"

RULES = (
    ApiRule(f"{PREFIX}/jobs", "api_jobs", list_jobs, Role.VIEWER, errors=(400,)),
    ApiRule(_JOB, "api_job", get_job, Role.VIEWER, errors=(404,)),
    ApiRule(f"{_JOB}/cancel", "api_cancel", cancel_job, Role.OPERATOR, methods=POST, errors=(404,)),
    ApiRule(f"{_JOB}/retry", "api_retry", retry_job, Role.OPERATOR, methods=POST, errors=(404, 409)),
    ApiRule(f"{_JOB}/wake", "api_wake", wake_job, Role.OPERATOR, methods=POST, errors=(404, 422)),
    ApiRule(f"{PREFIX}/counts", "api_counts", count_jobs, Role.VIEWER),
)

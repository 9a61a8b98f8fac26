"""From rows to answers: secrets masked, and of others' things nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobbridge.core.masking.values import masked, without_passwords
from jobbridge.dashboard.access.redaction import IsSeen, seen_related
from jobbridge.dashboard.access.request_context import RequestContext
from jobbridge.dashboard.api.documents.responses import Job, JobDetail, Step

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobDetailRow, JobRow

#: Fields of a row that are not told as they are.
_OTHERWISE = frozenset(
    {"engine", "error", "worker", "job_id", "tenant", "progress_message", "parent_id", "root_id"}
)
_PLAIN = tuple(name for name in Job.model_fields if name not in _OTHERWISE)


def job_answer(context: RequestContext, row: JobRow) -> Job:
    """Tell of a job."""
    return Job.model_construct(**_job_fields(context, row, seen_related(context, [row])))


def job_answers(context: RequestContext, rows: Sequence[JobRow]) -> list[Job]:
    """Tell of several jobs."""
    is_seen = seen_related(context, rows)
    return [Job.model_construct(**_job_fields(context, row, is_seen)) for row in rows]


def job_detail(context: RequestContext, row: JobRow) -> JobDetail:
    """Tell all of a job."""
    return JobDetail.model_construct(
        **_job_fields(context, row, seen_related(context, [row])),
        metadata=masked(dict(row.metadata)),
        result=masked(row.result),
        traceback=without_passwords(row.traceback) or None,
        steps=[_step(detail) for detail in context.details_of(row)],
    )


def _job_fields(context: RequestContext, row: JobRow, is_seen: IsSeen) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _PLAIN} | {
        "job_id": row.job_id,
        "tenant": row.tenant,
        "engine": row.runner_type,
        "error": without_passwords(row.error) or None,
        "cancel_reason": without_passwords(row.cancel_reason) or None,
        "progress_message": without_passwords(row.progress_message) or None,
        "parent_id": row.parent_id if row.parent_id and is_seen(row.parent_id) else None,
        "root_id": row.root_id if row.root_id and is_seen(row.root_id) else None,
        "worker": row.worker if context.principal.tenant is None else None,
    }


def _step(detail: JobDetailRow) -> Step:
    return Step.model_construct(
        sequence=detail.sequence,
        step_name=detail.step_name,
        step_key=detail.step_key,
        attempt=detail.attempt,
        status=detail.status,
        result=masked(detail.result),
        error=without_passwords(detail.error) or None,
        began_at=detail.created_at,
        ended_at=detail.processed_at,
    )

"""The API, version 1: jobs as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from jobbridge.core.access import Role
from jobbridge.dashboard import asking
from jobbridge.dashboard.showing import exact, masked, without_passwords
from jobbridge.dashboard.visits import Rule, Visit

if TYPE_CHECKING:
    from jobbridge.store.rows import JobDetailRow, JobRow

_PLAIN = (
    "task_id", "type", "queue", "priority", "attempt", "max_attempts", "progress", "progress_message",
    "cancelled_by", "cancel_reason",
)  # fmt: skip
_IDS = ("user_id", "root_id", "parent_id", "group_id", "external_id", "external_run_id")
_TIMES = ("created_at", "updated_at", "run_at", "expires_at", "started_at", "completed_at")


def list_jobs(visit: Visit) -> Response:
    """Give a page of the jobs that match, newest first."""
    query = visit.request.query_params
    page = visit.dashboard.monitor.page(
        asking.search_of(query, visit.tenant),
        before=asking.position_of(query),
        limit=asking.limit_of(query),
    )
    return JSONResponse(
        {
            "jobs": [_job(visit, row) for row in page.jobs],
            "next": asking.position_text(page.next),
            "searched_to": exact(page.searched_to) or None,
        }
    )


def get_job(visit: Visit) -> Response:
    """Give one job with its data, result and steps."""
    row = visit.find_job()
    told = _job(visit, row) | {
        "metadata": masked(dict(row.metadata)),
        "result": masked(row.result),
        "traceback": without_passwords(row.traceback) or None,
        "steps": [_step(detail) for detail in visit.app.jobs.details(row.key)],
    }
    return JSONResponse(told)


def _job(visit: Visit, row: JobRow) -> dict[str, Any]:
    told: dict[str, Any] = {
        "job_id": str(row.job_id),
        "tenant": row.tenant,
        "status": row.status.value,
        "engine": row.runner_type.value,
        "error": without_passwords(row.error) or None,
    }
    told |= {name: getattr(row, name) for name in _PLAIN}
    told |= {name: None if getattr(row, name) is None else str(getattr(row, name)) for name in _IDS}
    told |= {name: exact(getattr(row, name)) or None for name in _TIMES}
    if visit.principal.tenant is None:
        told["worker"] = row.worker
    return told


def _step(detail: JobDetailRow) -> dict[str, Any]:
    fields = asdict(detail)
    kept = ("sequence", "step_name", "step_key", "attempt")
    return {name: fields[name] for name in kept} | {
        "status": detail.status.value,
        "result": masked(detail.result),
        "error": without_passwords(detail.error) or None,
        "began_at": exact(detail.created_at),
        "ended_at": exact(detail.processed_at) or None,
    }


RULES = (
    Rule(path="/api/v1/jobs", name="api_jobs", endpoint=list_jobs, needs=Role.VIEWER),
    Rule(path="/api/v1/jobs/{job_id}", name="api_job", endpoint=get_job, needs=Role.VIEWER),
)

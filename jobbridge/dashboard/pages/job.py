"""One job: why it is where it is, its attempts and steps, its data, and what can be done."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from jobbridge.core.access import Role
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.dashboard.visits import Rule, Visit
from jobbridge.diagnosis.explaining import Reason, explain

#: Reasons that tell of nothing but the job itself: who is bound to a tenant learns nothing of the others' workers,
#: queues and numbers.
_OF_THE_JOB = frozenset(
    {
        "ended", "not_due", "pending", "running", "fell_back", "expires", "last_error", "not_started",
        "waits_for_chain", "suspended", "children",
    }
)  # fmt: skip


def job(visit: Visit) -> Response:
    """One job: why it is where it is, its attempts and steps, its data, and what can be done."""
    row = visit.find_job()
    is_final = row.status in FINAL
    return visit.dashboard.page(
        visit,
        "job.html",
        job=row,
        details=visit.app.jobs.details(row.key),
        reasons=_reasons(visit, explain(visit.app, row).reasons),
        children=visit.app.families.counts(row.key),
        data=row.metadata.get("data"),
        metadata={name: value for name, value in row.metadata.items() if name != "data"},
        may_act=visit.principal.may(Role.OPERATOR),
        can_cancel=not is_final,
        can_retry=row.status in {JobStatus.FAILED, JobStatus.EXPIRED, JobStatus.SKIPPED},
        can_run_again=is_final,
        query=None if visit.principal.tenant is not None else {"tenant": row.tenant},
    )


def _reasons(visit: Visit, reasons: Sequence[Reason]) -> list[Reason]:
    """Leave out what tells of others; the hints are commands for operators of the whole installation."""
    if visit.principal.tenant is None:
        return list(reasons)
    return [Reason(code=reason.code, what=reason.what) for reason in reasons if reason.code in _OF_THE_JOB]


RULES = (Rule(path="/jobs/{job_id}", name="job", endpoint=job, needs=Role.VIEWER),)

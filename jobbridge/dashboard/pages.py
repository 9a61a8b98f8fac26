"""The pages. Each reads a bounded number of rows (see `jobbridge.store.monitor` and `counting`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.dashboard import asking
from jobbridge.dashboard.visits import Rule, Visit, uuid_or_none
from jobbridge.diagnosis.checks import check_all
from jobbridge.diagnosis.explaining import Reason, explain
from jobbridge.store.counting import HourCount
from jobbridge.store.monitor import Search
from jobbridge.store.schedules import ScheduleStore

#: Reasons that tell of nothing but the job itself: who is bound to a tenant learns nothing of the others' workers,
#: queues and numbers.
_OF_THE_JOB = frozenset(
    {
        "ended", "not_due", "pending", "running", "fell_back", "expires", "last_error", "not_started",
        "waits_for_chain", "suspended", "children",
    }
)  # fmt: skip
_FAILURES_SHOWN = 10
_HOURS_SHOWN = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Hour:
    """A column of the chart: the jobs made in that hour, by what became of them."""

    at: datetime
    completed: int
    failed: int
    other: int

    @property
    def total(self) -> int:
        return self.completed + self.failed + self.other


def overview(visit: Visit) -> Response:
    """How it goes: all jobs by status and engine, the last day by the hour, and the newest failures."""
    dashboard, tenant = visit.dashboard, visit.tenant
    begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=_HOURS_SHOWN - 1)
    cells = dashboard.counts.hours(since=begin, tenant=tenant)
    hours = _by_hour(cells, begin)
    failures = dashboard.monitor.page(
        Search(tenant=tenant, statuses=[JobStatus.FAILED], since=begin), limit=_FAILURES_SHOWN
    )
    completed, failed = sum(hour.completed for hour in hours), sum(hour.failed for hour in hours)
    return dashboard.page(
        visit,
        "overview.html",
        totals=dashboard.counts.totals(tenant),
        engines=list(Engine),
        statuses=list(JobStatus),
        hours=hours,
        highest=max(1, *(hour.total for hour in hours)),
        success=100 * completed / (completed + failed) if completed + failed else None,
        failed=failed,
        failures=failures.jobs,
        tenant=tenant,
    )


def jobs(visit: Visit) -> Response:
    """A page of the jobs that match; an id leads to its job."""
    query = visit.request.query_params
    search = asking.search_of(query, visit.tenant)
    if search.text and (job_id := uuid_or_none(search.text)):
        whose = {"tenant": search.tenant} if search.tenant and visit.principal.tenant is None else None
        return RedirectResponse(visit.path("job", job_id=job_id, query=whose), status_code=303)
    page = visit.dashboard.monitor.page(
        search, before=asking.position_of(query), limit=asking.limit_of(query)
    )
    kept = [(name, value) for name, value in query.multi_items() if name != "before" and value]
    following = asking.position_text(page.next)
    return visit.dashboard.page(
        visit,
        "jobs.html",
        jobs=page.jobs,
        searched_to=page.searched_to,
        older=None if following is None else "?" + urlencode([*kept, ("before", following)]),
        newest="?" + urlencode(kept) if query.get("before") else None,
        is_filtered=any(name not in {"limit", "tenant"} for name, _ in kept),
        query=query,
        chosen=set(query.getlist("status")),
        statuses=list(JobStatus),
        engines=list(Engine),
        times=list(asking.SINCE),
    )


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


def schedules(visit: Visit) -> Response:
    """What recurs, and when it fires next."""
    rows = ScheduleStore(visit.app.database).list(tenant=visit.tenant)
    return visit.dashboard.page(visit, "schedules.html", schedules=rows)


def workers(visit: Visit) -> Response:
    """The workers that live, by engine, and what they serve."""
    rows = visit.app.workers.all()
    return visit.dashboard.page(visit, "workers.html", workers=rows)


def tenants(visit: Visit) -> Response:
    """Which tenants there are."""
    return visit.dashboard.page(visit, "tenants.html", tenants=visit.app.tenants.all())


def health(visit: Visit) -> Response:
    """What `jobbridge doctor` finds."""
    checks = check_all(visit.app, visit.app.settings)
    return visit.dashboard.page(visit, "health.html", checks=checks)


def from_the_original(visit: Visit) -> Response:
    """Lead from the original's address to ours."""
    return RedirectResponse(visit.path("overview"), status_code=307)


def _by_hour(cells: Sequence[HourCount], begin: datetime) -> list[Hour]:
    counts: Counter[tuple[datetime, str]] = Counter()
    names = {JobStatus.COMPLETED: "completed", JobStatus.FAILED: "failed"}
    for cell in cells:
        counts[cell.hour, names.get(cell.status, "other")] += cell.jobs
    hours = (begin + timedelta(hours=hour) for hour in range(_HOURS_SHOWN))
    return [
        Hour(at=at, **{name: counts[at, name] for name in ("completed", "failed", "other")}) for at in hours
    ]


def _reasons(visit: Visit, reasons: Sequence[Reason]) -> list[Reason]:
    """Leave out what tells of others; the hints are commands for operators of the whole installation."""
    if visit.principal.tenant is None:
        return list(reasons)
    return [Reason(code=reason.code, what=reason.what) for reason in reasons if reason.code in _OF_THE_JOB]


RULES = (
    Rule(path="/", name="overview", endpoint=overview, needs=Role.VIEWER),
    Rule(path="/jobs", name="jobs", endpoint=jobs, needs=Role.VIEWER),
    Rule(path="/jobs/{job_id}", name="job", endpoint=job, needs=Role.VIEWER),
    Rule(path="/schedules", name="schedules", endpoint=schedules, needs=Role.VIEWER),
    Rule(path="/workers", name="workers", endpoint=workers, needs=Role.VIEWER, is_global=True),
    Rule(path="/tenants", name="tenants", endpoint=tenants, needs=Role.VIEWER, is_global=True),
    Rule(path="/health", name="health", endpoint=health, needs=Role.OPERATOR, is_global=True),
    Rule(path="/msp/jobs", name="from_the_original", endpoint=from_the_original, needs=None),
)

"""How it goes: all jobs by status and engine, the last day by the hour, and the newest failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.visits import Rule, Visit
from jobbridge.store.counting import HourCount
from jobbridge.store.monitor import Search

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


RULES = (
    Rule(path="/", name="overview", endpoint=overview, needs=Role.VIEWER),
    Rule(path="/msp/jobs", name="from_the_original", endpoint=from_the_original, needs=None),
)

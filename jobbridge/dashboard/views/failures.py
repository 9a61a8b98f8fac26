"""What failed within the last day, whenever it was made, put together by type and error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.core.masking.error_groups import kind_of, message_of
from jobbridge.core.status import JobStatus
from jobbridge.store.counts.flow import Span

if TYPE_CHECKING:
    from jobbridge.dashboard.access.request_context import RequestContext
    from jobbridge.store.jobs.rows import JobRow

DAY = timedelta(days=1)
#: So many failures are looked at and grouped; so many groups are shown.
LOOKED_AT = 200
_GROUPS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Jobs of one type that failed alike.

    Attributes:
        newest: The last of them.
    """

    newest: JobRow
    message: str
    jobs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Failures:
    """What failed.

    Attributes:
        groups: What failed alike, the latest first; not more than are shown.
        found: How many jobs are in all groups, also in those that are not shown.
        is_cut: There may be more: so many are looked at, and no more.
        recorded: Exact, but of whole hours, and with those that were run again since.
        recorded_since: The beginning of the first of these hours.
    """

    groups: Sequence[Group]
    found: int
    is_cut: bool
    recorded: int
    recorded_since: datetime


def failures(context: RequestContext, *, now: datetime) -> Failures:
    """Look at what failed within a day before `now`."""
    since = now - DAY
    recorded_since = Span.HOUR.begin(since)
    jobs = context.dashboard.monitor.failed(since=since, tenant=context.tenant, limit=LOOKED_AT)
    return Failures(
        groups=_grouped(jobs)[:_GROUPS],
        found=len(jobs),
        is_cut=len(jobs) >= LOOKED_AT,
        recorded=_recorded(context, recorded_since),
        recorded_since=recorded_since,
    )


def _recorded(context: RequestContext, since: datetime) -> int:
    cells = context.dashboard.flow.cells(Span.HOUR, since=since, tenant=context.tenant)
    return sum(cell.jobs for cell in cells if cell.status is JobStatus.FAILED)


def _grouped(failures: Sequence[JobRow]) -> list[Group]:
    groups: dict[tuple[str, str], list[JobRow]] = {}
    for job in sorted(failures, key=lambda job: job.completed_at or job.updated_at, reverse=True):
        groups.setdefault((job.type, kind_of(job.error)), []).append(job)
    return [
        Group(newest=jobs[0], message=message_of(jobs[0].error), jobs=len(jobs)) for jobs in groups.values()
    ]

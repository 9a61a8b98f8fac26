"""What failed within the last day, whenever it was made, put together by type and error.

`jobs` has no index on when a job ended (decision 0003), so failed jobs are looked for from the newest on, until as many
are found as `job_flow` tells of, or the time is over. What was not looked through is told, beside the flow's number.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.core.status import JobStatus
from jobbridge.dashboard.views.formats import first_line
from jobbridge.store.counts.flow import Span
from jobbridge.store.monitor.search import Search

if TYPE_CHECKING:
    from jobbridge.dashboard.access.request_context import RequestContext
    from jobbridge.store.jobs.rows import JobRow

DAY = timedelta(days=1)
#: So many failures are looked at and grouped; so many groups are shown.
LOOKED_AT = 200
_GROUPS = 12
#: For how long it goes on for those that were made long ago; the first page of a search is always read.
_PATIENCE = timedelta(milliseconds=100)
#: What differs from one failure to the next of the same kind: ids and numbers.
_VARYING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{12,}\b|\d+", re.IGNORECASE)
_MESSAGE = 300


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
        searched_to: Jobs that were made before were not looked at; None: all were.
        recorded: Exact, but of whole hours, and with those that were run again since.
        recorded_since: The beginning of the first of these hours.
    """

    groups: Sequence[Group]
    found: int
    is_cut: bool
    searched_to: datetime | None
    recorded: int
    recorded_since: datetime


def failures(context: RequestContext, *, now: datetime) -> Failures:
    """Look at what failed within a day before `now`."""
    since = now - DAY
    recorded_since = Span.HOUR.begin(since)
    recorded = _recorded(context, recorded_since)
    jobs, searched_to = _find(context, since, recorded)
    return Failures(
        groups=_grouped(jobs)[:_GROUPS],
        found=len(jobs),
        is_cut=len(jobs) >= LOOKED_AT,
        searched_to=searched_to,
        recorded=recorded,
        recorded_since=recorded_since,
    )


def _recorded(context: RequestContext, since: datetime) -> int:
    cells = context.dashboard.flow.cells(Span.HOUR, since=since, tenant=context.tenant)
    return sum(cell.jobs for cell in cells if cell.status is JobStatus.FAILED)


def _find(context: RequestContext, since: datetime, recorded: int) -> tuple[list[JobRow], datetime | None]:
    search = Search(tenant=context.tenant, statuses=[JobStatus.FAILED], ended_since=since)
    monitor, ends_at = context.dashboard.monitor, time.monotonic() + _PATIENCE.total_seconds()
    page = monitor.page(search, limit=LOOKED_AT)
    found = list(page.jobs)
    while page.next is not None and len(found) < min(recorded, LOOKED_AT) and time.monotonic() < ends_at:
        page = monitor.page(search, before=page.next, limit=LOOKED_AT - len(found))
        found += page.jobs
    return found, None if len(found) >= recorded else page.searched_to


def _grouped(failures: Sequence[JobRow]) -> list[Group]:
    groups: dict[tuple[str, str], list[JobRow]] = {}
    for job in sorted(failures, key=lambda job: job.completed_at or job.updated_at, reverse=True):
        kind = _VARYING.sub("#", first_line(job.error)[:_MESSAGE])
        groups.setdefault((job.type, kind), []).append(job)
    return [
        Group(newest=jobs[0], message=first_line(jobs[0].error)[:_MESSAGE], jobs=len(jobs))
        for jobs in groups.values()
    ]

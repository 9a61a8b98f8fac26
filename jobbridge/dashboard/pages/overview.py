"""How it goes: all jobs by status and engine, what started and ended over time, what needs attention, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.dashboard.views import charts
from jobbridge.dashboard.views.attention import alerts
from jobbridge.dashboard.views.failures import failures
from jobbridge.dashboard.views.first_job import first_job
from jobbridge.store.counts.flow import STARTED, Cell, Span, Times, add_up, together

#: Statuses that have a card, and those that have a line below.
_CARDS = (
    (JobStatus.PROCESSING, "Running"),
    (JobStatus.QUEUED, "Queued"),
    (JobStatus.SCHEDULED, "Scheduled"),
    (JobStatus.WAITING, "Waiting"),
    (JobStatus.RETRYING, "Retrying"),
    (JobStatus.COMPLETED, "Completed"),
    (JobStatus.FAILED, "Failed"),
)
_OTHERS = (JobStatus.PENDING, JobStatus.CANCELLED, JobStatus.EXPIRED, JobStatus.SKIPPED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A stretch of time that the charts show."""

    text: str
    span: Span
    slots: int

    def begin(self, now: datetime) -> datetime:
        return self.span.begin(now) - (self.slots - 1) * self.span.length

    @property
    def label(self) -> str:
        """How the beginning of a slot is written, for `strftime`."""
        if self.span is Span.DAY:
            return "%d %b"
        return "%H:%M" if self.slots <= 24 else "%a %d %b"


RANGES = {
    "24h": Range(text="24 hours", span=Span.HOUR, slots=24),
    "7d": Range(text="7 days", span=Span.HOUR, slots=168),
    "30d": Range(text="30 days", span=Span.DAY, slots=30),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """What started and ended in an hour or a day.

    Attributes:
        waited: Of those that started.
        took: Of those that ended, and had started.
    """

    at: datetime
    completed: int
    failed: int
    other: int
    started: int
    waited: Times
    took: Times

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.other


def overview(context: RequestContext) -> Response:
    """How it goes: all jobs by status and engine, what started and ended over time, and what to look at."""
    name = context.request.query_params.get("range") or "24h"
    chosen = _range(name)
    now = datetime.now(UTC)
    cells = context.dashboard.flow.cells(chosen.span, since=chosen.begin(now), tenant=context.tenant)
    slots = _slots(cells, chosen, now)
    query = context.of_tenant(context.tenant)
    totals = context.dashboard.counts.totals(context.tenant)
    return context.dashboard.page(
        context,
        "overview.html",
        cards=_CARDS,
        others=_OTHERS,
        engines=list(Engine),
        totals=totals,
        first_job=first_job(context) if not totals and context.tenant is None else None,
        chosen=name,
        range=chosen,
        ranges={key: (each.text, _path(context, query, key)) for key, each in RANGES.items()},
        here=_path(context, query, name),
        slots=slots,
        charts=_charts(slots),
        marks=_marks(slots, chosen),
        totals_of_range=_summary(slots),
        success_of={engine: _success(cells, engine) for engine in Engine},
        recorded_since=_recorded_since(context, chosen.begin(now)),
        alerts=alerts(context),
        is_looking=context.tenant is None and context.dashboard.check_up.quick.last is None,
        failures=failures(context, now=now),
        tenant=context.tenant,
    )


def from_the_original(context: RequestContext) -> Response:
    """Lead from the original's address to ours."""
    return RedirectResponse(context.path("overview"), status_code=307)


def _range(name: str) -> Range:
    if name not in RANGES:
        raise HTTPException(400, f"range is {name!r}; it must be one of {', '.join(RANGES)}.")
    return RANGES[name]


def _path(context: RequestContext, query: Mapping[str, str], name: str) -> str:
    return context.path("overview", query=dict(query) | ({"range": name} if name != "24h" else {}))


def _recorded_since(context: RequestContext, begin: datetime) -> datetime | None:
    """Give when the charts begin, if that is later than they seem to."""
    since = context.dashboard.flow.recorded_since(context.tenant)
    return since if since is not None and since > begin else None


def _slots(cells: Iterable[Cell], chosen: Range, now: datetime) -> list[Slot]:
    by_time: dict[datetime, list[Cell]] = {}
    for cell in cells:
        by_time.setdefault(cell.at.astimezone(UTC), []).append(cell)
    begin = chosen.begin(now)
    instants = [begin + place * chosen.span.length for place in range(chosen.slots)]
    return [_slot(at, by_time.get(at, [])) for at in instants]


def _slot(at: datetime, cells: Sequence[Cell]) -> Slot:
    def jobs(status: JobStatus) -> int:
        return sum(cell.jobs for cell in cells if cell.status is status)

    ended = sum(cell.jobs for cell in cells if cell.status is not STARTED)
    completed, failed = jobs(JobStatus.COMPLETED), jobs(JobStatus.FAILED)
    return Slot(
        at=at,
        completed=completed,
        failed=failed,
        other=ended - completed - failed,
        started=jobs(STARTED),
        waited=together(cell for cell in cells if cell.status is STARTED),
        took=together(cell for cell in cells if cell.status is not STARTED),
    )


def _charts(slots: Sequence[Slot]) -> Mapping[str, charts.Chart]:
    return {
        "throughput": charts.columns(
            [
                ("completed", [slot.completed for slot in slots]),
                ("other", [slot.other for slot in slots]),
                ("failed", [slot.failed for slot in slots]),
            ]
        ),
        "waited": _lines([slot.waited for slot in slots]),
        "took": _lines([slot.took for slot in slots]),
    }


def _lines(times: Sequence[Times]) -> charts.Chart:
    return charts.lines(
        [("p95", [each.quantile(0.95) for each in times]), ("p50", [each.quantile(0.5) for each in times])]
    )


def _marks(slots: Sequence[Slot], chosen: Range) -> list[str]:
    """Give the words below a chart: of some slots, evenly apart."""
    parts = 4 if chosen.slots == 24 else 7 if chosen.slots == 168 else 5
    return [slots[place * chosen.slots // parts].at.strftime(chosen.label) for place in range(parts)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The whole range in some numbers.

    Attributes:
        success: Per cent of those that completed or failed; None: none did.
    """

    ended: int
    failed: int
    success: float | None
    waited: Mapping[str, timedelta | None]
    took: Mapping[str, timedelta | None]


def _summary(slots: Sequence[Slot]) -> Summary:
    completed, failed = sum(slot.completed for slot in slots), sum(slot.failed for slot in slots)
    return Summary(
        ended=sum(slot.ended for slot in slots),
        failed=failed,
        success=_share(completed, failed),
        waited=_quantiles(slot.waited for slot in slots),
        took=_quantiles(slot.took for slot in slots),
    )


def _success(cells: Iterable[Cell], engine: Engine) -> float | None:
    ended: Counter[JobStatus] = Counter()
    for cell in cells:
        if cell.engine is engine:
            ended[cell.status] += cell.jobs
    return _share(ended[JobStatus.COMPLETED], ended[JobStatus.FAILED])


def _share(completed: int, failed: int) -> float | None:
    return 100 * completed / (completed + failed) if completed + failed else None


def _quantiles(times: Iterable[Times]) -> Mapping[str, timedelta | None]:
    all_of_them = add_up(times)
    return {"p50": all_of_them.quantile(0.5), "p95": all_of_them.quantile(0.95)}


RULES = (
    Rule("/", "overview", overview, Role.VIEWER),
    Rule("/msp/jobs", "from_the_original", from_the_original, None),
)

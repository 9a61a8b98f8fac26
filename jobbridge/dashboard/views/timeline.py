"""When a job waited, ran and did its steps, as bars on one axis. Pure: the time is passed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.core.durable import DURABLE, Kind
from jobbridge.dashboard.views import durable_steps

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobDetailRow, JobRow

#: Width of the axis; a bar is never thinner than one hundredth.
WIDTH = 1000.0
_THINNEST = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A part of a job's time.

    Attributes:
        status: Names its colour.
        begin, width: On the axis.
        took: None: it has not begun, or its end is not known.
        note: What more there is to say: who sent what it waited for, that it was made again since.
        from_here: The name by which the job can be run again from here on; None: it cannot.
    """

    label: str
    key: str | None
    status: str
    attempt: int | None
    began_at: datetime
    took: timedelta | None
    begin: float
    width: float
    is_step: bool
    error: str | None = None
    note: str = ""
    from_here: str | None = None


def timeline(job: JobRow, steps: Sequence[JobDetailRow], *, now: datetime) -> list[Bar]:
    """Give a bar for the time before the first start, and one for each attempt and step, in their order."""
    due_at = first_due_at(job)
    ends = [step.processed_at or now for step in steps]
    begin = min([job.created_at, *(step.created_at for step in steps)])
    end = max([job.completed_at or now, *ends, begin + timedelta(milliseconds=1)])
    axis = _Axis(begin, end)
    waited_until = job.started_at or job.completed_at or now
    is_later = due_at > job.created_at
    bars = [_wait(axis, "not due yet", job.created_at, min(due_at, waited_until))] if is_later else []
    bars.append(_wait(axis, "waited", min(due_at, waited_until), waited_until))
    return [*bars, *_bars(axis, job, steps, now)]


def first_due_at(job: JobRow) -> datetime:
    """Give when it could start for the first time; a retry's instant takes its place, and it is not known then."""
    if job.run_at is None or (job.started_at is not None and job.run_at > job.started_at):
        return job.created_at
    return max(job.created_at, job.run_at)


@dataclass(frozen=True, slots=True)
class _Axis:
    begin: datetime
    end: datetime

    def place(self, begin: datetime, end: datetime) -> tuple[float, float]:
        whole = self.end - self.begin
        # Clocks differ, and a job that is retried keeps its first start.
        begin, end = (min(max(at, self.begin), self.end) for at in (begin, end))
        width = max(_THINNEST, WIDTH * ((end - begin) / whole))
        return min(WIDTH - width, WIDTH * ((begin - self.begin) / whole)), width


def _wait(axis: _Axis, label: str, begin: datetime, end: datetime) -> Bar:
    x, width = axis.place(begin, max(begin, end))
    return Bar(
        label=label, key=None, status="queued", attempt=None, began_at=begin, took=max(begin, end) - begin,
        begin=x, width=width, is_step=False,
    )  # fmt: skip


def _bars(axis: _Axis, job: JobRow, steps: Sequence[JobDetailRow], now: datetime) -> Iterator[Bar]:
    seen: set[str] = set()
    for step in steps:
        bar = _bar(axis, step, now)
        if step.metadata.get(DURABLE) == Kind.FAILURE:
            continue  # the job's own error says it
        if bar.is_step:
            told = durable_steps.told(job, step)
            can_begin = step.step_name not in seen and durable_steps.can_begin_at(step)
            seen |= {step.step_name} if can_begin else set()
            bar = replace(bar, label=told.label, status=told.status, note=told.note,
                          from_here=step.step_name if can_begin else None)  # fmt: skip
        yield bar


def _bar(axis: _Axis, step: JobDetailRow, now: datetime) -> Bar:
    end = max(step.created_at, step.processed_at or now)
    x, width = axis.place(step.created_at, end)
    is_step = step.step_name != "attempt"
    return Bar(
        label=step.step_name if is_step else f"attempt {step.attempt}",
        key=step.step_key,
        status=step.status.value,
        attempt=step.attempt,
        began_at=step.created_at,
        took=None if step.processed_at is None else end - step.created_at,
        begin=x,
        width=width,
        is_step=is_step,
        error=step.error,
    )

"""How the durable calls of a handler are called on a page: sleeps, waits, calls, and what came of each. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobbridge.core.durable import DURABLE, Kind
from jobbridge.core.status import JobStatus

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobDetailRow, JobRow

#: What is no step of the handler's: it happened to the job.
NOTES = frozenset({"attempt", "fallback", "recovered", "moved", "children", "snooze"})
_LABELS: dict[str | None, str] = {
    Kind.SLEEP: "sleep",
    Kind.EVENT: "wait for {}",
    Kind.CALL: "call {}",
    Kind.VERSION: "version of {}",
    Kind.UNDO: "undo: {}",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of a step: its label, a word for its status, and what more there is to know."""

    label: str
    status: str
    note: str = ""


def told(job: JobRow, step: JobDetailRow) -> Told:
    """Say what a step is, and how it is."""
    label = _LABELS.get(step.metadata.get(DURABLE) or _former_kind(step), "{}").format(step.step_name)
    if is_superseded(step):
        return Told(label, "superseded", "made again since")
    if step.step_name == "snooze" and DURABLE not in step.metadata:
        return Told(label, step.status.value, str(step.metadata.get("reason") or ""))
    is_asleep = step.status is JobStatus.SCHEDULED and job.run_at is not None and not job.status.is_final
    if is_asleep:
        return Told(label, "sleeping", f"until {_at(job.run_at)}")
    if step.status is JobStatus.WAITING:
        return Told(label, "waiting", f"until {_at(job.run_at)}" if job.run_at is not None else "")
    if step.metadata.get("timed_out"):
        return Told(label, "timed out", "nothing came in time")
    if step.metadata.get("event"):
        by = step.metadata.get("sent_by")
        return Told(label, step.status.value, f"sent by {by}" if by else "sent")
    return Told(label, step.status.value)


def is_superseded(step: JobDetailRow) -> bool:
    """Whether it was to be made again since: what it left is there for people alone."""
    return "superseded" in step.metadata or "forgotten" in step.metadata


def can_begin_at(step: JobDetailRow) -> bool:
    """Whether a job can be run again from this step on."""
    is_call = step.metadata.get(DURABLE) in {Kind.RUN, Kind.SLEEP, Kind.EVENT, Kind.CALL}
    is_known = is_call or step.step_key is not None
    return is_known and step.step_name not in NOTES and not is_superseded(step)


def _former_kind(step: JobDetailRow) -> str | None:
    kind = str(step.metadata.get("call", "")).partition(":")[0]
    return kind or None


def _at(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%d %b %H:%M:%S} UTC"

"""What was enqueued, read from the rows, and compared with what a test expects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, LiteralString
from uuid import UUID

from kombu.utils import json as kombu_json
from psycopg.rows import dict_row

from jobbridge.core.keys import SYSTEM_TENANT

if TYPE_CHECKING:
    from jobbridge.store.database import Database

#: What a moment that is named may differ by: a countdown is counted from when the task was sent.
TOLERANCE: Final = timedelta(seconds=2)
_SHOWN: Final = 20

_ENQUEUED: LiteralString = """
SELECT tenant, job_id, task_id, type, status, queue, priority, run_at, expires_at, attempt, error, result, metadata,
    created_at, completed_at
FROM public.jobs
ORDER BY created_at, job_id
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job as its row tells it.

    Attributes:
        args: As they were sent; a handler's data is the only one. None: they are too large for the row, or no JSON.
        at: When it is due, if it was sent for later.
    """

    task: str
    id: str
    job_id: UUID
    status: str
    args: list[Any] | None
    kwargs: dict[str, Any]
    tenant: str
    queue: str | None
    priority: int
    at: datetime | None
    attempt: int
    error: str | None
    result: Any
    created_at: datetime
    completed_at: datetime | None

    def __str__(self) -> str:
        said = "…" if self.args is None else ", ".join(_repr(each) for each in self.args)
        named = ", ".join(f"{name}={_repr(value)}" for name, value in self.kwargs.items())
        parts = [f"{self.task}({', '.join(filter(None, (said, named)))})"]
        if self.tenant != SYSTEM_TENANT:
            parts.append(f"tenant={self.tenant!r}")
        parts.append(f"queue={self.queue!r}")
        if self.at is not None:
            parts.append(f"at={self.at.isoformat()}")
        parts.append(f"[{self.status}{f': {self.error}' if self.error else ''}]")
        return " ".join(parts)


def jobs_of(database: Database) -> list[Job]:
    """Give all jobs, the first one first."""
    rows = database.run(lambda own: own.cursor(row_factory=dict_row).execute(_ENQUEUED).fetchall())
    return [_job(row) for row in rows]


def _job(row: Mapping[str, Any]) -> Job:
    args, kwargs = _arguments(row["metadata"])
    return Job(
        task=row["type"], id=row["task_id"], job_id=row["job_id"], status=row["status"], args=args, kwargs=kwargs,
        tenant=str(row["tenant"]), queue=row["queue"], priority=row["priority"], at=row["run_at"],
        attempt=row["attempt"], error=row["error"], result=row["result"], created_at=row["created_at"],
        completed_at=row["completed_at"],
    )  # fmt: skip


def _arguments(metadata: Mapping[str, Any]) -> tuple[list[Any] | None, dict[str, Any]]:
    data = metadata.get("data")
    if data is None:
        return ([], {}) if "data" in metadata else (None, {})
    if isinstance(data, Mapping) and data.keys() <= {"args", "kwargs"} and data:
        return list(data.get("args") or ()), dict(data.get("kwargs") or {})
    return [data], {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What a job must be like; None: whatever it is."""

    task: str | None = None
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    tenant: str | None = None
    at: datetime | timedelta | None = None
    queue: str | None = None
    status: str | None = None

    def differences(self, job: Job) -> list[str]:
        """Say in what a job differs."""
        found = [
            f"{name} is {_repr(got)}, not {_repr(wanted)}"
            for name, wanted, got in (
                ("args", None if self.args is None else _plain(self.args), job.args),
                ("kwargs", None if self.kwargs is None else _plain(self.kwargs), job.kwargs),
                ("tenant", self.tenant, job.tenant),
                ("queue", self.queue, job.queue),
                ("status", self.status, job.status),
            )
            if wanted is not None and wanted != got
        ]
        if self.at is not None and not self._is_at(job):
            found.append(
                f"at is {job.at.isoformat() if job.at else 'at once'}, not {self._named_at(job).isoformat()}"
            )
        return found

    def _named_at(self, job: Job) -> datetime:
        assert self.at is not None
        if isinstance(self.at, timedelta):
            return job.created_at + self.at
        return self.at if self.at.tzinfo is not None else self.at.replace(tzinfo=UTC)

    def _is_at(self, job: Job) -> bool:
        return job.at is not None and abs(job.at - self._named_at(job)) <= TOLERANCE

    def __str__(self) -> str:
        told = [
            f"{name}={value!r}"
            for name in ("args", "kwargs", "tenant", "at", "queue", "status")
            if (value := getattr(self, name)) is not None
        ]
        return f"{self.task or 'any task'}" + (f" with {', '.join(told)}" if told else "")


def found_among(jobs: Sequence[Job], expected: Expected) -> list[Job]:
    """Give the jobs that are as expected."""
    return [job for job in jobs if expected.task in (None, job.task) and not expected.differences(job)]


def listing(jobs: Sequence[Job], expected: Expected | None = None) -> str:
    """Say what was enqueued, and of jobs of the same task in what each differs."""
    if not jobs:
        return "Nothing was enqueued."
    lines = [f"Enqueued {'was 1 job' if len(jobs) == 1 else f'were {len(jobs)} jobs'}:"]
    for job in jobs[:_SHOWN]:
        lines.append(f"  - {job}")
        if expected is not None and expected.task == job.task:
            lines += [f"      {each}" for each in expected.differences(job)]
    if len(jobs) > _SHOWN:
        lines.append(f"  … and {len(jobs) - _SHOWN} more")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Give what JSON makes of arguments: so they are in the row, and so the task gets them."""
    return json.loads(kombu_json.dumps(list(value) if isinstance(value, tuple) else value))


def _repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"

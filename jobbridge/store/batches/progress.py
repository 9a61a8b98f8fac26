"""Batches: jobs that are sent in one block, or join it later, and what follows when all have ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from jobbridge.core.keys import TenantId
from jobbridge.core.status import FINAL, JobStatus

#: The header of a message, and the key in the metadata of a row, that name the batch of a job.
BATCH = "jobbridge_batch"


class BatchState(StrEnum):
    """How a batch is."""

    OPEN = "open"  # its block has not ended
    SEALED = "sealed"  # it has; jobs of it are open, which may add more
    COMPLETED = "completed"  # all jobs completed
    FAILED = "failed"  # all have ended, and not all completed
    CANCELLED = "cancelled"


#: Of those that take no more jobs.
ENDED = frozenset({BatchState.COMPLETED, BatchState.FAILED, BatchState.CANCELLED})


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchProgress:
    """How a batch is, and how many of its jobs are in which status.

    Attributes:
        reason: Why it was cancelled.
        statuses: Those that jobs of it are in.
    """

    id: UUID
    tenant: TenantId
    name: str
    state: BatchState
    reason: str | None
    created_at: datetime
    sealed_at: datetime | None
    ended_at: datetime | None
    statuses: Mapping[JobStatus, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Its jobs so far."""
        return sum(self.statuses.values())

    @property
    def completed(self) -> int:
        return self.statuses.get(JobStatus.COMPLETED, 0)

    @property
    def ended(self) -> int:
        """Those that have, however."""
        return sum(number for status, number in self.statuses.items() if status in FINAL)

    @property
    def failed(self) -> int:
        """Those that ended otherwise than completed."""
        return self.ended - self.completed

    @property
    def open(self) -> int:
        """Those that wait or run."""
        return self.total - self.ended

    @property
    def percent(self) -> float:
        """How much of it has ended, 0 to 100."""
        return 100.0 * self.ended / self.total if self.total else 0.0

    def to_json(self) -> dict[str, object]:
        """Give it for programs; instants as ISO 8601."""
        return {
            "id": str(self.id),
            "tenant": self.tenant,
            "name": self.name,
            "state": self.state.value,
            "reason": self.reason,
            "total": self.total,
            "completed": self.completed,
            "failed": self.failed,
            "open": self.open,
            "percent": round(self.percent, 1),
            "statuses": {status.value: number for status, number in sorted(self.statuses.items())},
            "created_at": self.created_at.isoformat(),
            "sealed_at": None if self.sealed_at is None else self.sealed_at.isoformat(),
            "ended_at": None if self.ended_at is None else self.ended_at.isoformat(),
        }

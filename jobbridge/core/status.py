"""The states of a job, and which follow which.

pending ─► queued ─► processing ─► completed
   │    scheduled ┘      │  ▲  └──► failed
   │                     ▼  │
   └────────────────► retrying       cancelled ◄─ any non-final status
                      scheduled      expired, skipped: final, never ran
                      waiting

A running job that sleeps is `scheduled`, with its time; one that waits for an event or for jobs that it called is
`waiting`. Both are sent again by their own attempt, and go on by the same number.
"""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    PENDING = "pending"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    PROCESSING = "processing"
    RETRYING = "retrying"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset(
    {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED, JobStatus.SKIPPED}
)
#: Ended, and not as it was meant.
UNSUCCESSFUL = FINAL - {JobStatus.COMPLETED}
WAITING = frozenset(
    {JobStatus.PENDING, JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.RETRYING, JobStatus.WAITING}
)
OPEN = frozenset(JobStatus) - FINAL

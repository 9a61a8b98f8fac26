"""What the tables hold, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from jobbridge.core.events import HIDDEN
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.status import JobStatus

Json = Any  # what json.loads returns


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRow:
    """A job, without its message and its encoded result."""

    key: JobKey
    task_id: str
    type: str
    status: JobStatus
    metadata: Mapping[str, Json]
    user_id: UUID | None
    runner_type: Engine
    external_id: str | None
    external_run_id: str | None
    queue: str | None
    priority: int
    run_at: datetime | None
    expires_at: datetime | None
    singleton_key: str | None
    root_id: UUID | None
    parent_id: UUID | None
    group_id: str | None
    delivery: UUID | None
    attempt: int
    max_attempts: int | None
    worker: str | None
    worker_number: int | None
    progress: float | None
    progress_message: str | None
    result: Json
    error: str | None
    traceback: str | None
    cancelled_by: str | None
    cancel_reason: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    @property
    def job_id(self) -> UUID:
        return self.key.job_id

    @property
    def tenant(self) -> TenantId:
        return self.key.tenant


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResult:
    """What the result backend needs of a job. `result_payload`, if any, is the whole in the backend's own form.

    Attributes:
        is_ignored: It has begun and not ended, or was revoked, and nobody is to be told of it.
    """

    key: JobKey
    task_id: str
    status: JobStatus
    attempt: int
    result: Json
    result_payload: bytes | None
    result_type: str | None
    error: str | None
    traceback: str | None
    worker: str | None
    started_at: datetime | None
    completed_at: datetime | None
    is_ignored: bool

    @property
    def job_id(self) -> UUID:
        return self.key.job_id

    @property
    def is_hidden(self) -> bool:
        """Whether Celery's backends would know nothing of it."""
        return self.is_ignored or self.result_type == HIDDEN


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredDelivery:
    """A job with the message by which an engine is to run it; None once the job has ended, and always on CE."""

    key: JobKey
    task_id: str
    type: str
    status: JobStatus
    attempt: int
    delivery: UUID | None
    queue: str | None
    run_at: datetime | None
    message: Json


@dataclass(frozen=True, kw_only=True, slots=True)
class JobDetailRow:
    """A step of a job: an attempt (`step_name` is "attempt"), or a part that the handler reports.

    Attributes:
        attempt: 1-based; the column `retry_count`.
        created_at: When it began.
        processed_at: When it ended.
    """

    detail_id: UUID
    job_id: UUID
    sequence: int
    step_name: str
    step_key: str | None
    status: JobStatus
    attempt: int
    result: Json
    metadata: Mapping[str, Json]
    error: str | None
    traceback: str | None
    created_at: datetime
    updated_at: datetime
    processed_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FallenBackRow:
    """A job that another engine took than its own."""

    key: JobKey
    type: str
    status: JobStatus
    fell_back_at: datetime
    reason: str


def job_row(**columns: Any) -> JobRow:
    """Make a JobRow of the columns of `jobs.COLUMNS`."""
    return JobRow(
        **_keyed(columns)
        | {"runner_type": Engine.parse(columns["runner_type"]), "metadata": columns["metadata"] or {}}
    )


def stored_result(**columns: Any) -> StoredResult:
    """Make a StoredResult of its columns."""
    return StoredResult(**_keyed(columns))


def stored_delivery(**columns: Any) -> StoredDelivery:
    """Make a StoredDelivery of its columns; the message is read as JSON."""
    message = columns["message"]
    return StoredDelivery(**_keyed(columns) | {"message": None if message is None else json.loads(message)})


def job_detail_row(**columns: Any) -> JobDetailRow:
    """Make a JobDetailRow of the columns of `jobs.DETAIL_COLUMNS`."""
    attempt = columns.pop("retry_count") or 0
    known = {
        "status": JobStatus(columns["status"]),
        "attempt": attempt,
        "metadata": columns["metadata"] or {},
    }
    return JobDetailRow(**columns | known)


def fallen_back_row(**columns: Any) -> FallenBackRow:
    """Make a FallenBackRow of its columns."""
    metadata = columns.pop("metadata") or {}
    return FallenBackRow(**_keyed(columns) | {"reason": str(metadata.get("reason", ""))})


def _keyed(columns: dict[str, Any]) -> dict[str, Any]:
    # str: an adopted database has tenants of type uuid.
    key = JobKey(tenant=TenantId(str(columns.pop("tenant"))), job_id=columns.pop("job_id"))
    return columns | {"key": key, "status": JobStatus(columns["status"])}

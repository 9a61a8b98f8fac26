"""Sets of statuses as SQL writes them: from `jobbridge.core.status`, so that a new status is in all statements."""

from __future__ import annotations

from collections.abc import Collection
from typing import LiteralString

from jobbridge.core.status import FINAL, WAITING, JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.presence import is_let_go


def listed(statuses: Collection[JobStatus]) -> LiteralString:
    """Give what stands between the brackets of `IN (…)`, in the order of the statuses' lives."""
    return ", ".join(f"'{status}'" for status in JobStatus if status in statuses)


FINAL_STATUSES: LiteralString = listed(FINAL)
WAITING_STATUSES: LiteralString = listed(WAITING)

#: Of `public.jobs`: it has not ended, or was cancelled and its attempt may still run (`transitions.STOPPED`).
MAY_BE_AT_WORK: LiteralString = (
    f"(jobs.status NOT IN ({FINAL_STATUSES}) OR jobs.status = 'cancelled' AND jobs.worker_number IS NOT NULL)"
)


def has_stopped(connection: DriverConnection, status: str, worker_number: int | None) -> bool:
    """Tell whether a job is cancelled and the worker that could still say that its work has stopped is gone."""
    return status == JobStatus.CANCELLED and (worker_number is None or is_let_go(connection, worker_number))

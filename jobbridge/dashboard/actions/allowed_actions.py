"""What can be done to a job, in the status that it is in and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobbridge.core.access import Role
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.dashboard.access.request_context import RequestContext

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobRow

RETRYABLE = frozenset({JobStatus.FAILED, JobStatus.EXPIRED, JobStatus.SKIPPED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Possible:
    """What can be done to a job in its status, by this person."""

    cancel: bool
    retry: bool
    run_again: bool
    edit: bool
    retry_from: bool = False
    wake: bool = False

    @property
    def any(self) -> bool:
        return self.cancel or self.retry or self.run_again or self.wake


def possible(context: RequestContext, row: JobRow) -> Possible:
    """Tell what this person can do to a job."""
    may_act, is_final, has_data = (
        context.principal.may(Role.OPERATOR),
        row.status in FINAL,
        "data" in row.metadata,
    )
    return Possible(
        cancel=may_act and not is_final,
        retry=may_act and row.status in RETRYABLE and has_data,
        run_again=may_act and is_final and has_data,
        edit=may_act and is_final and has_data,
        retry_from=may_act and has_data and row.status in RETRYABLE | {JobStatus.COMPLETED},
        wake=may_act and row.status is JobStatus.SCHEDULED and row.started_at is not None,
    )

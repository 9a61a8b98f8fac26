"""What the workflow writes about its job outside of an execution. That this fails does not stop the run."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import JobInput, StatusUpdate
from jobbridge.temporal.wire.signals import CancelRequest


async def record_cancelled(job: JobInput, request: CancelRequest | None) -> None:
    """Say in the row that the job is cancelled; without a request, Temporal's own cancel was used."""
    request = request or CancelRequest(reason="The workflow was cancelled.")
    await update_status(
        StatusUpdate(
            job_id=job.job_id,
            tenant_id=job.tenant_id,
            status="cancelled",
            reason=request.reason,
            cancelled_by=request.cancelled_by,
        )
    )


async def update_status(update: StatusUpdate) -> None:
    """Tell the row, in a local activity; a warning says so when it could not be done."""
    try:
        await workflow.execute_local_activity(
            contract.UPDATE_JOB_STATUS,
            update.to_json(),
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=200),
                maximum_interval=timedelta(seconds=2),
                maximum_attempts=5,
            ),
        )
    except ActivityError as error:
        workflow.logger.warning(
            "job.status_not_recorded", extra={"status": update.status, "error": str(error.cause)}
        )

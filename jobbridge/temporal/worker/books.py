"""The activities that keep books for what happens to a job outside of an execution."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from jobbridge.core.events import Cancelled, Expired, Failed, JobEvent, Progressed
from jobbridge.core.keys import SYSTEM_TENANT, JobKey, TenantId, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import StatusUpdate
from jobbridge.temporal.wire.messages import bounded

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


class Books:
    """What a workflow, or somebody's own, may have written and read.

    Args:
        app: Whose jobs.
        executor: For what blocks on the database.
    """

    def __init__(self, app: Celery, *, executor: ThreadPoolExecutor) -> None:
        self._app = app
        self._executor = executor

    @property
    def all(self) -> list[Any]:
        return [self.update_job_status, self.create_job_detail, self.get_job_data]

    @activity.defn(name=contract.UPDATE_JOB_STATUS)
    async def update_job_status(self, document: Any) -> Any:
        """Record what happened to a job outside of an execution; tells the row's status afterwards."""
        update = StatusUpdate.from_json(document)
        return await self._blocking(self._update_status, update)

    def _update_status(self, update: StatusUpdate) -> dict[str, Any]:
        key = key_of(self._app, update.job_id, update.tenant_id)
        recorded = self._app.recorder.record(self._event(key, update))
        if recorded.applied and recorded.status is JobStatus.CANCELLED:
            self._app.fan_outs.cancel(key, cancelled_by=update.cancelled_by)
        return {"applied": recorded.applied, "status": recorded.status.value if recorded.status else None}

    def _event(self, key: JobKey, update: StatusUpdate) -> JobEvent:
        match update.status:
            case "cancelled":
                return Cancelled(key=key, reason=update.reason, cancelled_by=update.cancelled_by)
            case "expired":
                return Expired(key=key)
            case "failed":
                return Failed(key=key, attempt=None, error=update.reason or "failed", task_id=update.job_id)
            case "processing":
                row = self._app.jobs.get(key)
                attempt = row.attempt if row else 0
                return Progressed(
                    key=key, attempt=attempt, progress=update.progress or 0.0, message=update.reason
                )
        raise ApplicationError(
            f"The status {update.status!r} cannot be set from outside of an execution.", non_retryable=True
        )

    @activity.defn(name=contract.CREATE_JOB_DETAIL)
    async def create_job_detail(self, document: Any) -> Any:
        """Add a finished step `{jobId, tenantId, stepName, result?}` to a job."""
        return await self._blocking(self._create_detail, document)

    def _create_detail(self, document: dict[str, Any]) -> dict[str, Any]:
        key = key_of(self._app, str(document["jobId"]), document.get("tenantId"))
        row = self._app.jobs.get(key)
        attempt = row.attempt if row else 0
        with self._app.job_steps.step(
            key, attempt, str(document["stepName"]), key=document.get("stepKey")
        ) as step:
            if not step.is_done:
                step.result = document.get("result")
        return {
            "detailId": str(step.detail_id),
            "result": bounded(step.result, {"$ref": "job_details.result"}),
        }

    @activity.defn(name=contract.GET_JOB_DATA)
    async def get_job_data(self, document: Any) -> Any:
        """Give `{status, data, result}` of the job `{jobId, tenantId}`; null when there is none."""
        return await self._blocking(self._job_data, document)

    def _job_data(self, document: dict[str, Any]) -> dict[str, Any] | None:
        row = self._app.jobs.get(key_of(self._app, str(document["jobId"]), document.get("tenantId")))
        if row is None:
            return None
        return {
            "status": row.status.value,
            "data": bounded(row.metadata.get("data"), contract.METADATA_REFERENCE),
            "result": bounded(row.result, contract.RESULT_REFERENCE),
        }

    async def _blocking(self, function: Any, document: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, document)


def key_of(app: Celery, task_id: str, tenant: str | None) -> JobKey:
    """Give the key of a job; without a tenant, that of the row that has this id."""
    job_id = job_id_for(task_id)
    if tenant is None:
        row = app.jobs.find(job_id)
        if row is not None:
            return row.key
    return JobKey(tenant=TenantId(tenant or SYSTEM_TENANT), job_id=job_id)

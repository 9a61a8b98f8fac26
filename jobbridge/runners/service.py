"""The job record, for code that shows and describes jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.core.keys import Engine, JobKey, TenantId, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.errors import JobNotFound
from jobbridge.runners.runner import Options
from jobbridge.runners.types import ScheduledJob, ScheduleOptions
from jobbridge.store.jobs.queries import JobDetailRow, JobFilter, JobPage, JobRow

if TYPE_CHECKING:
    from jobbridge.runners.runner import JobRunner


class JobService:
    """Creates, describes and lists jobs.

    A status is nobody's to set: it follows from what happens to the job.

    Args:
        runner: Sends the jobs; its app has the tables.
    """

    def __init__(self, runner: JobRunner) -> None:
        self._runner = runner
        self._app = runner.app

    def create_job(self, name: str, data: Any = None, options: Options = None) -> ScheduledJob:
        """Make a job's row and send it, in one transaction; raises as `JobRunner.schedule_job`."""
        return self._runner.schedule_job(name, data, ScheduleOptions.of(options))

    def get_job(self, job_id: UUID | str, tenant_id: str) -> JobRow | None:
        """Give the job of that tenant."""
        return self._app.jobs.get(_key(job_id, tenant_id))

    def update_job(self, job_id: UUID | str, tenant_id: str, *, metadata: Mapping[str, Any]) -> JobRow:
        """Add to a job's metadata; a key that is there already is replaced.

        Raises:
            JobNotFound: There is no such job of that tenant.
        """
        key = _key(job_id, tenant_id)
        is_known = self._app.jobs.describe(key, metadata)
        row = self._app.jobs.get(key) if is_known else None
        if row is None:
            raise JobNotFound.with_id(str(job_id))
        return row

    def get_job_details(self, job_id: UUID | str, tenant_id: str) -> Sequence[JobDetailRow]:
        """Give the steps of a job in the order in which they began; none when there is no such job."""
        return self._app.jobs.details(_key(job_id, tenant_id))

    def create_job_detail(
        self,
        job_id: UUID | str,
        tenant_id: str,
        step_name: str,
        *,
        result: Any = None,
        key: str | None = None,
    ) -> UUID:
        """Add a finished step to a job. With a key that a finished step of that name has, nothing is written.

        Returns:
            The id of the row.

        Raises:
            JobNotFound: There is no such job of that tenant.
        """
        row = self.get_job(job_id, tenant_id)
        if row is None:
            raise JobNotFound.with_id(str(job_id))
        with self._app.job_steps.step(row.key, row.attempt, step_name, key=key) as step:
            if not step.is_done:
                step.result = result
        return step.detail_id

    def list_jobs(
        self,
        tenant_id: str | None = None,
        *,
        statuses: Sequence[JobStatus | str] | None = None,
        name: str | None = None,
        engine: Engine | None = None,
        queue: str | None = None,
        before: tuple[datetime, UUID] | None = None,
        limit: int = 50,
    ) -> JobPage:
        """Give a page of jobs, newest first.

        Args:
            tenant_id: Whose; None: everybody's.
            statuses: In one of these.
            name: Of this handler or task.
            engine: On this engine.
            queue: In this queue.
            before: The `next` of the page before.
            limit: At most so many.
        """
        where = JobFilter(
            tenant=None if tenant_id is None else TenantId(tenant_id),
            statuses=None if statuses is None else [JobStatus(status) for status in statuses],
            type=name,
            engine=engine,
            queue=queue,
        )
        return self._app.jobs.page(where, before=before, limit=limit)


def _key(job_id: UUID | str, tenant_id: str) -> JobKey:
    return JobKey(tenant=TenantId(tenant_id), job_id=job_id_for(str(job_id)))

"""How far the jobs of this worker are, for Temporal.

Handlers report into their job's row. From there it goes into the heartbeats of the job's activity, which Temporal's UI
shows and no history keeps, and the workflow's query is answered: never by signals, of which a workflow can take ten
thousand. Heartbeats only for jobs that take long enough for anybody to look, with one statement for all of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor
from datetime import timedelta
from typing import TYPE_CHECKING, LiteralString

from jobbridge.codec.rows import open_progress
from jobbridge.core.keys import JobKey, TenantId, job_id_for
from jobbridge.errors import DatabaseError
from jobbridge.temporal.worker.execution import Execution
from jobbridge.temporal.workflows.live import LiveProgress

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.temporal.worker.bridge import WorkerHost

logger = logging.getLogger(__name__)

INTERVAL = timedelta(seconds=2)
#: The SDK gives up a workflow's thread, which answers the query, after two.
ANSWERS_WITHIN = timedelta(seconds=1)

PROGRESS: LiteralString = """
SELECT job_id, progress, progress_message
FROM public.jobs
WHERE tenant = ANY(%(tenants)s) AND job_id = ANY(%(job_ids)s) AND status = 'processing' AND progress IS NOT NULL
"""


class ProgressReporter:
    """Has the heartbeats of this worker's jobs say how far they are."""

    def __init__(self, app: Celery, host: WorkerHost, *, executor: Executor) -> None:
        self._app = app
        self._host = host
        self._executor = executor

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL.total_seconds())
            try:
                await self._report()
            except DatabaseError as error:
                logger.debug("progress.not_reported", extra={"error": str(error)})
            except Exception:
                logger.exception("progress.failed")

    async def _report(self) -> None:
        now = time.monotonic()
        running = [
            execution
            for execution in self._host.executions
            if now - execution.since > INTERVAL.total_seconds() and not execution.settled.done()
        ]
        if not running:
            return
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._executor, self._read, running)
        for execution in running:
            execution.progress = rows.get(str(execution.key.job_id), execution.progress)

    def _read(self, running: list[Execution]) -> dict[str, tuple[float, str | None]]:
        params = {
            "tenants": list({execution.key.tenant for execution in running}),
            "job_ids": [execution.key.job_id for execution in running],
        }
        rows = self._app.database.run(lambda own: own.execute(PROGRESS, params).fetchall())
        codec = self._app.database.codec
        return {
            str(job_id): (round(float(progress), 2), open_progress(codec, message, job_id))
            for job_id, progress, message in rows
        }


class RowReader:
    """Reads a job's progress for a query, and gives up in time for its answer."""

    def __init__(self, app: Celery, *, executor: Executor) -> None:
        self._app = app
        self._executor = executor

    def __call__(self, tenant: str | None, task_id: str) -> LiveProgress | None:
        """Give what the row says now; None: no such job, or no answer in time."""
        try:
            # On a thread of the worker's: a workflow's own may not wait, nor import what a database needs.
            asked = self._executor.submit(self._read, tenant, task_id)
        except RuntimeError:
            return None  # the worker stops
        try:
            return asked.result(timeout=ANSWERS_WITHIN.total_seconds())
        except TimeoutError:
            asked.cancel()
            return None
        except DatabaseError as error:
            logger.debug("progress.not_read", extra={"job_id": task_id, "error": str(error)})
            return None

    def _read(self, tenant: str | None, task_id: str) -> LiveProgress | None:
        job_id, jobs = job_id_for(task_id), self._app.jobs
        row = (
            jobs.find(job_id) if tenant is None else jobs.get(JobKey(tenant=TenantId(tenant), job_id=job_id))
        )
        return None if row is None else LiveProgress(progress=row.progress, message=row.progress_message)

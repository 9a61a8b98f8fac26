"""Shows in Temporal what handlers report: their progress goes into the job's row, and from there to the workflow.

Only for jobs that take long enough for anybody to look, with one query for all of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor
from datetime import timedelta
from typing import TYPE_CHECKING, LiteralString

from temporalio.service import RPCError

from jobbridge.errors import DatabaseError, EngineUnavailable
from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import ProgressUpdate
from jobbridge.temporal.worker.execution import Execution

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.temporal.wire.client import TemporalClient
    from jobbridge.temporal.worker.bridge import WorkerHost

logger = logging.getLogger(__name__)

INTERVAL = timedelta(seconds=2)

PROGRESS: LiteralString = """
SELECT job_id, progress, progress_message
FROM public.jobs
WHERE tenant = ANY(%(tenants)s) AND job_id = ANY(%(job_ids)s) AND status = 'processing' AND progress IS NOT NULL
"""

_Shown = tuple[float, str | None]


class ProgressReporter:
    """Signals the workflows of this worker's jobs how far they are."""

    def __init__(self, app: Celery, host: WorkerHost, client: TemporalClient, *, executor: Executor) -> None:
        self._app = app
        self._host = host
        self._client = client
        self._executor = executor
        self._shown: dict[str, _Shown] = {}

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL.total_seconds())
            try:
                await self._report()
            except (DatabaseError, EngineUnavailable) as error:
                logger.debug("progress.not_reported", extra={"error": str(error)})
            except Exception:
                logger.exception("progress.failed")

    async def _report(self) -> None:
        now = time.monotonic()
        running = [
            execution
            for execution in self._host.executions
            if now - execution.since > INTERVAL.total_seconds()
            and not execution.settled.done()
            and execution.light is None  # there is no workflow to be told
        ]
        self._shown = {
            task_id: shown for task_id, shown in self._shown.items() if self._runs(task_id, running)
        }
        if not running:
            return
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._executor, self._read, running)
        for execution in running:
            shown = rows.get(str(execution.key.job_id))
            if shown is not None and self._shown.get(execution.task_id) != shown:
                self._shown[execution.task_id] = shown
                await self._signal(execution, shown)

    def _read(self, running: list[Execution]) -> dict[str, _Shown]:
        params = {
            "tenants": list({execution.key.tenant for execution in running}),
            "job_ids": [execution.key.job_id for execution in running],
        }
        rows = self._app.database.run(lambda own: own.execute(PROGRESS, params).fetchall())
        return {str(job_id): (round(float(progress), 2), message) for job_id, progress, message in rows}

    async def _signal(self, execution: Execution, shown: _Shown) -> None:
        update = ProgressUpdate(progress=shown[0], message=shown[1], is_recorded=True)
        client = await self._client.connected()
        handle = client.get_workflow_handle(execution.workflow_id, run_id=execution.run_id)
        try:
            await handle.signal(contract.UPDATE_PROGRESS, update.to_json())
        except RPCError as error:
            logger.debug(
                "progress.not_signalled", extra={"job_id": execution.task_id, "error": error.message}
            )

    @staticmethod
    def _runs(task_id: str, running: list[Execution]) -> bool:
        return any(execution.task_id == task_id for execution in running)

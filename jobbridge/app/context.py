"""What a handler is given besides its data."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.worker import state as worker_state

from jobbridge.app.execution import Run, record, run_of
from jobbridge.core.events import Progressed
from jobbridge.core.keys import SYSTEM_TENANT, Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.errors import JobCancelled
from jobbridge.store.steps import Step

if TYPE_CHECKING:
    import psycopg

    from jobbridge.settings import Settings

#: Progress is written at most this often, in seconds (and always at the end).
PROGRESS_INTERVAL = 0.5


class JobContext:
    """The job that runs: who it is for, how far it is, and whether it should stop."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._run: Run | None = run_of(task.request)
        self._progress_written_at = 0.0
        self.logger = logging.LoggerAdapter(
            logging.getLogger(task.spec.function.__module__),
            {"job_id": self.job_id, "tenant": self.tenant_id, "attempt": self.attempt},
        )

    @property
    def job_id(self) -> str:
        return str(self._run.key.job_id) if self._run else str(self._task.request.id or "")

    @property
    def tenant_id(self) -> TenantId:
        return self._run.key.tenant if self._run else SYSTEM_TENANT

    @property
    def name(self) -> str:
        return str(self._task.name)

    @property
    def engine(self) -> Engine:
        return self._run.engine if self._run else Engine.CELERY

    @property
    def queue(self) -> str:
        return str((self._task.request.delivery_info or {}).get("routing_key") or "")

    @property
    def attempt(self) -> int:
        """1-based. Grows with each start, also after a lost worker."""
        return self._run.attempt or 1 if self._run else 1

    @property
    def max_attempts(self) -> int:
        return int(self._task.spec.retry.max_attempts)

    @property
    def settings(self) -> Settings:
        settings: Settings = self._task.app.settings
        return settings

    # -- progress and steps

    def progress(self, done: float, total: float = 100, message: str | None = None) -> None:
        """Tell how far the job is. Written at most twice a second.

        Raises:
            JobCancelled: The job was cancelled meanwhile.
        """
        now = time.monotonic()
        is_last = done >= total
        if not is_last and now - self._progress_written_at < PROGRESS_INTERVAL:
            return
        self._progress_written_at = now
        if self._run is None or self._run.attempt is None:
            return
        share = 100.0 * done / total if total else 100.0
        event = Progressed(
            key=self._run.key,
            attempt=self._run.attempt,
            progress=max(0.0, min(100.0, share)),
            message=message,
        )
        recorded = record(self._task.app, event)
        if recorded is not None and recorded.status is JobStatus.CANCELLED:
            raise JobCancelled(f"Job {self.job_id} was cancelled.")

    @contextmanager
    def step(self, name: str, *, key: str | None = None) -> Iterator[Step]:
        """A named part of the job, with a row in `job_details`.

        With a key, a step that finished in an earlier attempt is known: `step.is_done` is true and `step.result`
        holds its result; nothing is written. Otherwise the body runs, and the step is completed when it ends.

            with ctx.step("render", key=invoice_id) as step:
                if not step.is_done:
                    step.result = render(invoice_id)
        """
        self.check_cancelled()
        if self._run is None or self._run.attempt is None:
            yield Step(name=name, key=key)
            return
        with self._task.app.job_steps.step(self._run.key, self._run.attempt, name, key=key) as step:
            yield step

    # -- stopping

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody cancelled this job. Asks the worker first, then the row."""
        if self._task.request.id in worker_state.revoked:
            return True
        if self._run is None:
            return False
        row = self._task.app.jobs.get(self._run.key)
        return row is not None and row.status is JobStatus.CANCELLED

    def check_cancelled(self) -> None:
        """Stop here if the job was cancelled.

        Raises:
            JobCancelled: It was; let it pass.
        """
        if self.is_cancelled:
            raise JobCancelled(f"Job {self.job_id} was cancelled.")

    # -- the application's database

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction in the app's database, committed at the end, with `app.current_tenant` set."""
        with self._task.app.database.transaction() as connection:
            connection.execute("SELECT set_config('app.current_tenant', %s, true)", [self.tenant_id])
            yield connection

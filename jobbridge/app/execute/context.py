"""What a handler is given besides its data."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from celery import current_task
from celery.worker import state as worker_state

from jobbridge.app.execute.claim import Run, record, run_of
from jobbridge.app.execute.durable.context import DurableContext
from jobbridge.app.options import engine_named
from jobbridge.app.paced import PROGRESS, REPORTS
from jobbridge.app.routing import queue_of
from jobbridge.core.envelope import HEADER
from jobbridge.core.events import Progressed
from jobbridge.core.fanout import DEFAULT_CONCURRENCY, FanOut
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import SYSTEM_TENANT, Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.errors import JobCancelled, NoCurrentJob
from jobbridge.postgres.connect import IDLE_IN_USERS_TRANSACTION
from jobbridge.store.jobs.steps import Step

if TYPE_CHECKING:
    import psycopg

    from jobbridge.app.types import Task
    from jobbridge.settings import Settings

_BEGIN = """
SELECT set_config('app.current_tenant', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)
"""


class JobContext(DurableContext):
    """The job that runs: who it is for, how far it is, and whether it should stop."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._run: Run | None = run_of(task.request)
        #: What `fan_out` gave last.
        self.fanned_out: FanOut | None = None
        self.logger = logging.LoggerAdapter(
            logging.getLogger(_module_of(task)),
            {"job_id": self.job_id, "tenant": self.tenant_id, "attempt": self.attempt},
        )

    @property
    def job_id(self) -> str:
        return str(self._run.key.job_id) if self._run else str(self._task.request.id or "")

    @property
    def tenant_id(self) -> TenantId:
        if self._run is not None:
            return self._run.key.tenant
        told = (self._task.request.headers or {}).get(HEADER) or {}  # of an eager child
        return TenantId(told.get("tenant") or SYSTEM_TENANT)

    @property
    def name(self) -> str:
        return str(self._task.name)

    @property
    def engine(self) -> Engine:
        return self._run.engine if self._run else Engine.CELERY

    @property
    def queue(self) -> str:
        request = self._task.request
        info = request.delivery_info or {}
        told = (getattr(request, HEADER, None) or {}).get("queue")
        return str(told or queue_of(self._task.app, info.get("exchange"), info.get("routing_key")))

    @property
    def attempt(self) -> int:
        """1-based. Grows with each start, also after a lost worker."""
        return self._run.attempt or 1 if self._run else 1

    @property
    def max_attempts(self) -> int:
        """The most that there are, if kinds of errors have numbers of their own."""
        spec = handler_of(self._task)
        if spec is not None:
            return int(spec.retry.most_attempts)
        most: int | None = self._task.max_retries
        return sys.maxsize if most is None else most + 1

    @property
    def settings(self) -> Settings:
        settings: Settings = self._task.app.settings
        return settings

    # -- progress and steps

    def progress(self, done: float, total: float = 100, message: str | None = None) -> None:
        """Tell how far the job is. Written a few times a second; the last report always.

        Raises:
            JobCancelled: The job was cancelled meanwhile.
        """
        if self._run is None or self._run.attempt is None:
            return
        share = 100.0 * done / total if total else 100.0
        event = Progressed(
            key=self._run.key,
            attempt=self._run.attempt,
            progress=max(0.0, min(100.0, share)),
            message=message,
        )
        recorded = REPORTS.put(self._run.task_id, PROGRESS, lambda: record(self._task.app, event))
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
        observer = self._task.app.observer
        with (
            nullcontext() if observer is None else observer.step(name, key),
            self._task.app.job_steps.step(self._run.key, self._run.attempt, name, key=key) as step,
        ):
            yield step

    # -- children

    def fan_out(
        self,
        handler: str | Task[..., Any],
        items: Iterable[Any],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        key: Callable[[Any], str] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        engine: Engine | str | None = None,
    ) -> FanOut:
        """Have one child job run for each item; to be returned by the handler, which ends its attempt by it.

            return ctx.fan_out("invoice.send", invoices, concurrency=5)

        No worker waits meanwhile. When the last child has ended, this job completes with their numbers as its result,
        or fails with `ChildrenFailed`.

        Args:
            handler: The children's handler or task, or its name.
            items: Data of each child, or `Child`s, which can say a tenant and a key; at most 100,000.
            concurrency: So many are with an engine at a time.
            key: Tells an item from the others, also when this job is run again; else its place does.
            queue: Else the handler's.
            priority: 0 to 9, higher first.
            engine: Else the handler's, else the one that this job runs on.

        Raises:
            UnsupportedOption: The concurrency is out of bounds.
        """
        options = {"queue": queue, "priority": priority, "engine": engine and engine_named(engine).value}
        self.fanned_out = FanOut(
            task=handler if isinstance(handler, str) else handler.name,
            items=items,
            concurrency=concurrency,
            key=key,
            options={name: value for name, value in options.items() if value is not None},
        )
        return self.fanned_out

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
        """A transaction in the app's database, committed at the end, with `app.current_tenant` set.

        Postgres ends one in which nothing is asked for an hour: then its locks are held for nobody.
        """
        with self._task.app.database.transaction() as connection:
            connection.execute(_BEGIN, [self.tenant_id, IDLE_IN_USERS_TRANSACTION])
            yield connection


def current_job() -> JobContext:
    """Give the context of the job that runs here, of any task of the app.

    Raises:
        NoCurrentJob: None does.
    """
    task: Any = current_task
    running = task._get_current_object() if task else None
    if running is None or running.request.called_directly or not getattr(running.app, "is_jobbridge", False):
        raise NoCurrentJob("No job of a jobbridge app runs here.")
    return JobContext(running)


def _module_of(task: Any) -> str:
    spec = handler_of(task)
    return str(task.__module__ if spec is None else spec.function.__module__)

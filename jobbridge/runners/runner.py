"""The runners: what callers hold to schedule, cancel and look at jobs.

Both are thin, because one app serves both engines; they differ in the engine of jobs that name none, and in what has to
answer for them to be healthy.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from kombu.exceptions import KombuError

from jobbridge.app.execute.handlers import job
from jobbridge.app.options import engine_named
from jobbridge.app.publish.consumers import warn_if_nobody_runs
from jobbridge.core.fanout import DEFAULT_CONCURRENCY, FanOut
from jobbridge.core.keys import Engine, JobKey, TenantId, job_id_for
from jobbridge.core.signed.event_links import CHOICES, LASTS
from jobbridge.errors import JobBridgeError, JobNotFound, UnsupportedOption
from jobbridge.runners.handlers import register_all_job_handlers
from jobbridge.runners.recurring import cancel_recurring, schedule_recurring
from jobbridge.runners.types import JobStatusReport, ScheduledJob, ScheduleOptions

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.types import Task

logger = logging.getLogger(__name__)

#: A ScheduleOptions, or its fields by name.
Options = ScheduleOptions | Mapping[str, Any] | None

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


def _on_a_thread(
    method: Callable[Concatenate[Any, _Params], _Result],
) -> Callable[Concatenate[Any, _Params], Coroutine[Any, Any, _Result]]:
    """Make a method's async twin: it runs on a thread, in the caller's context (`enqueue_on` holds there too)."""

    @wraps(method)
    async def twin(runner: Any, /, *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        own: Callable[_Params, _Result] = getattr(runner, method.__name__)  # a subclass may have another
        return await asyncio.to_thread(own, *args, **kwargs)

    twin.__name__ = f"a{method.__name__}"
    return twin


class JobRunner(ABC):
    """Schedules, cancels and shows jobs. Safe to use from several threads; each `a…` method is its async twin.

    Args:
        app: A `jobbridge.Celery`.

    Attributes:
        engine: Of jobs that name none.
    """

    engine: Engine

    def __init__(self, app: Celery) -> None:
        self._app = app

    @property
    def app(self) -> Celery:
        """The app that both engines share."""
        return self._app

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.app.main!r})"

    def schedule_job(self, name: str, data: Any = None, options: Options = None) -> ScheduledJob:
        """Send a job.

        Raises:
            UnknownHandler: No task has that name here.
            InvalidJobData: The data does not fit the handler.
            TenantRequired: The handler needs a tenant.
            UnsupportedOption: An option cannot be honoured.
            DuplicateJob: Another job has the singleton key, and the policy is `raise`.
            DatabaseUnavailable: Postgres cannot be reached: nothing was sent.
        """
        chosen = ScheduleOptions.of(options)
        chosen.refuse_recurrence()
        handle = self.app.enqueue(
            name,
            data,
            queue=chosen.queue,
            priority=chosen.priority,
            default_engine=self.engine,
            **chosen.of_one_job(),
        )
        warning = warn_if_nobody_runs(
            self.app, name, queue=chosen.queue, engine=chosen.engine, default_engine=self.engine
        )
        return ScheduledJob(
            job_id=handle.job_id, external_id=handle.external_id, outcome=handle.outcome, warning=warning
        )

    def schedule_job_at(
        self, name: str, data: Any, run_at: datetime, options: Options = None
    ) -> ScheduledJob:
        """Send a job that does not start before `run_at`. Raises as `schedule_job`."""
        chosen = ScheduleOptions.of(options)
        if chosen.run_at is not None and chosen.run_at != run_at:
            raise UnsupportedOption(
                f"run_at is {run_at} and, in the options, {chosen.run_at}.", hint="Pass it once."
            )
        return self.schedule_job(name, data, replace(chosen, run_at=run_at))

    def enqueue_many(
        self,
        name: str,
        rows: Iterable[Any],
        options: Options = None,
        *,
        on_id: Callable[[UUID], object] | None = None,
    ) -> int:
        """Send a job for each of `rows`, any number of them: they are read as they are sent, and none is kept.

        They are written in portions, each as a whole. If `rows` raises, or Postgres stays away, the portions before are
        sent; within the caller's transaction it is all or nothing.

        Args:
            name: Of the handler or task.
            rows: Each job's data, as for `schedule_job`.
            options: Of all of them.
            on_id: Called with each job's id, in their order; a portion may yet have to be written then.

        Returns:
            How many were sent.

        Raises:
            UnsupportedOption: There is a singleton key: they could not all have it. Else as `schedule_job`.
        """
        chosen = ScheduleOptions.of(options)
        chosen.refuse_recurrence()
        if chosen.singleton_key is not None:
            raise UnsupportedOption(
                f"singleton_key is {chosen.singleton_key!r}, for many jobs at once.", hint="Leave it out."
            )
        count = 0
        with self.app.bulk():
            for data in rows:
                handle = self.app.enqueue(
                    name,
                    data,
                    queue=chosen.queue,
                    priority=chosen.priority,
                    default_engine=self.engine,
                    add_to_parent=False,
                    **chosen.of_one_job(),
                )
                count += 1
                if on_id is not None:
                    on_id(handle.job_id)
        return count

    def fan_out(
        self,
        name: str,
        items: Iterable[Any],
        options: Options = None,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        key: Callable[[Any], str] | None = None,
    ) -> ScheduledJob:
        """Send a parent job with one child job for each item, so many of them at a time.

        Raises as `schedule_job`. An item is a child's data, or a `Child` with its tenant and key. Queue, priority and
        engine of the options are the children's, the others are the parent's.
        """
        chosen = ScheduleOptions.of(options)
        engine = None if chosen.engine is None else engine_named(chosen.engine).value
        childrens = {"queue": chosen.queue, "priority": chosen.priority, "engine": engine}
        wanted = FanOut(
            task=name,
            items=items,
            concurrency=concurrency,
            key=key,
            options={option: value for option, value in childrens.items() if value is not None},
        )
        handle = self.app.fan_out(wanted, default_engine=self.engine, **chosen.of_one_job())
        return ScheduledJob(job_id=handle.job_id, external_id=handle.external_id, outcome=handle.outcome)

    def retry_failed(self, job_id: UUID | str, tenant_id: str | None = None) -> int:
        """Run the children of a failed parent again that did not complete; gives their number.

        Raises:
            JobNotFound: There is no such job (of that tenant).
            CannotRetry: It has no children, or did not fail.
        """
        return int(self.app.retry_failed(job_id, tenant_id))

    def schedule_recurring_job(
        self, name: str, data: Any, when: str | timedelta, options: Options = None
    ) -> ScheduledJob:
        """Send a job again and again: by cron of five fields, or an interval such as "24 hours".

        The handler, the tenant and the singleton key name it: a second call changes it. `job_id` is the schedule's,
        which `cancel_job` takes; each fire is a job of its own. See docs/schedules.md for what the rest means.

        Raises as `schedule_job`, but for DuplicateJob, which is raised when there is such a recurring job already.
        """
        return schedule_recurring(self.app, name, data, when, ScheduleOptions.of(options), engine=self.engine)

    def cancel_job(
        self,
        job_id: UUID | str,
        tenant_id: str | None = None,
        *,
        reason: str | None = None,
        cancelled_by: str | None = None,
    ) -> bool:
        """Cancel a job, waiting or running; it never turns completed afterwards. Or delete a recurring one.

        Returns:
            False: it had ended before, or there is no such job (of that tenant).

        Raises:
            DatabaseUnavailable: Postgres cannot be reached.
        """
        try:
            return self.app.cancel_job(job_id, tenant_id, reason=reason, cancelled_by=cancelled_by)
        except JobNotFound:
            return cancel_recurring(self.app, job_id, tenant_id)

    def send_event(
        self,
        name: str,
        payload: Any = None,
        *,
        job_id: UUID | str | None = None,
        key: str | None = None,
        tenant: str | None = None,
        once: str | None = None,
        sent_by: str | None = None,
    ) -> str:
        """Send an event to a job, or to whoever waits for it by a key; gives `delivered`, `kept` or `repeated`.

        Raises as `Celery.send_event`.
        """
        return str(
            self.app.send_event(
                name, payload, job_id=job_id, key=key, tenant=tenant, once=once, sent_by=sent_by
            )
        )

    def wake_job(
        self, job_id: UUID | str, tenant_id: str | None = None, *, woken_by: str | None = None
    ) -> bool:
        """Have a job go on that sleeps; False: it does not sleep, or there is no such job (of that tenant).

        Raises as `Celery.wake_job`.
        """
        try:
            return self.app.wake_job(job_id, tenant_id, woken_by=woken_by)
        except JobNotFound:
            return False

    def event_link(
        self,
        job_id: UUID | str,
        name: str,
        *,
        expires_in: timedelta = LASTS,
        choices: Sequence[str] = CHOICES,
        tenant: str | None = None,
    ) -> str:
        """Make a link to a page on which somebody without an account answers, once, what a job waits for.

        Raises as `Celery.event_link`.
        """
        return str(self.app.event_link(job_id, name, expires_in=expires_in, choices=choices, tenant=tenant))

    def get_job_status(self, job_id: UUID | str, tenant_id: str | None = None) -> JobStatusReport | None:
        """Tell how a job is; None when there is no such job (of that tenant).

        Raises:
            DatabaseUnavailable: Postgres cannot be reached.
        """
        key = job_id_for(str(job_id))
        if tenant_id is None:
            row = self.app.jobs.find(key)
        else:
            row = self.app.jobs.get(JobKey(tenant=TenantId(tenant_id), job_id=key))
        return None if row is None else JobStatusReport.of(row)

    def register_handler(self, name: str, handler: Callable[..., Any], **config: Any) -> Task[..., Any]:
        """Declare a handler `(ctx, data)` as `@job(name, **config)` does; gives its task."""
        job(name, **config)(handler)
        task: Task[..., Any] = self.app.tasks[name]
        return task

    def start(self) -> None:
        """Import the handlers, and make sure that the tables can be used. Jobs run in workers, not here."""
        register_all_job_handlers(self.app)
        with self.app.database.connection():
            pass  # that checks the tables' revision

    def stop(self) -> None:
        """Let go of connections, clients and their threads; the next use opens new ones."""
        self.app.close()

    def is_healthy(self) -> bool:
        """Whether what jobs of this runner need does answer now. Never raises."""
        try:
            with self.app.database.connection() as connection:
                connection.execute("SELECT 1")
            return self._is_engine_healthy()
        except JobBridgeError as error:
            logger.warning("runner.unhealthy", extra={"engine": self.engine.value, "error": str(error)})
            return False

    @abstractmethod
    def _is_engine_healthy(self) -> bool: ...

    def get_runner_type(self) -> Engine:
        """Give the engine of jobs that name none."""
        return self.engine

    # -- for async callers

    aschedule_job = _on_a_thread(schedule_job)
    aschedule_job_at = _on_a_thread(schedule_job_at)
    aschedule_recurring_job = _on_a_thread(schedule_recurring_job)
    aenqueue_many = _on_a_thread(enqueue_many)
    afan_out = _on_a_thread(fan_out)
    aretry_failed = _on_a_thread(retry_failed)
    acancel_job = _on_a_thread(cancel_job)
    asend_event = _on_a_thread(send_event)
    awake_job = _on_a_thread(wake_job)
    aget_job_status = _on_a_thread(get_job_status)
    astart = _on_a_thread(start)
    astop = _on_a_thread(stop)
    ais_healthy = _on_a_thread(is_healthy)


class CeleryJobRunner(JobRunner):
    """Jobs run on the broker in Postgres, unless they say otherwise."""

    engine = Engine.CELERY

    def _is_engine_healthy(self) -> bool:
        if self.app.shares_database_with_broker:
            return True  # it answered a moment ago
        try:
            with self.app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=5)
        except (KombuError, OSError) as error:
            logger.warning("runner.unhealthy", extra={"engine": self.engine.value, "error": str(error)})
            return False
        return True


class TemporalJobRunner(JobRunner):
    """Jobs run on Temporal, unless they say otherwise."""

    engine = Engine.TEMPORAL

    def _is_engine_healthy(self) -> bool:
        self.app.delivery(Engine.TEMPORAL).check()
        return True

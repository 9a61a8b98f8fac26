"""Celery's request, where a worker's parent starts and settles the jobs of its pool (`settlement`).

Source: celery 5.7, worker/request.py (`Request`, `create_request_cls`) and worker/strategy.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from celery._state import get_current_app
from celery.app.task import Context
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.exceptions import TaskRevokedError
from celery.utils.functional import maybe
from celery.utils.imports import symbol_by_name
from celery.worker.request import Request
from celery.worker.state import task_ready

from jobbridge.app.execute import carried
from jobbridge.app.execute.killed import is_retried, note_stopped
from jobbridge.broker import UNCOUNTED

if TYPE_CHECKING:
    from jobbridge.app.execute.settlement import JobSettler
    from jobbridge.core.events import Started
    from jobbridge.store.jobs.batches import Begun

logger = logging.getLogger(__name__)


def adopt(task: Any, settler: JobSettler) -> None:
    """Have the jobs of a task started and settled together. Once for each task and process."""
    base = symbol_by_name(task.Request)
    if not issubclass(base, JobRequest):
        members = {"__module__": base.__module__, "_jobbridge_settler": settler}
        task.Request = type(base.__name__, (JobRequest, base), members)


class JobRequest:
    """What is put in front of a task's request class, which may be a user's: whatever is ours alone says so."""

    _jobbridge_settler: JobSettler
    #: The start that is to be written, or was.
    _jobbridge_started: Started | None = None
    #: What came of it; None: the pool's process claims the row itself.
    _jobbridge_begun: Begun | None = None
    #: It was stopped at its hard time limit, and another attempt follows.
    _jobbridge_was_retried = False

    #: Celery's own, behind ours.
    _jobbridge_execute_using_pool: Callable[..., Any] = Request.execute_using_pool
    _jobbridge_on_success: Callable[..., Any] = Request.on_success

    def __init_subclass__(cls) -> None:
        """Stay in front: for each task Celery makes a subclass, whose faster methods would hide these."""
        super().__init_subclass__()
        for name in ("execute_using_pool", "on_success"):
            if name in vars(cls):
                setattr(cls, f"_jobbridge_{name}", vars(cls)[name])
                delattr(cls, name)

    if TYPE_CHECKING:  # of Celery's Request
        id: str
        task: Any
        time_start: float | None
        _context: Context

        def revoked(self) -> bool: ...

    def execute_using_pool(self: Any, pool: Any, **options: Any) -> Any:
        """As Celery's own, but the pool's process is told that the row is claimed, and gives the end back."""
        if self._jobbridge_begun is None:
            return self._jobbridge_execute_using_pool(pool, **options)
        if self.revoked():
            raise TaskRevokedError(self.id)
        self._request_dict[carried.BEGUN] = (
            self._jobbridge_begun.attempt,
            not self._jobbridge_begun.is_counted,
            time.monotonic(),
        )
        hard, soft = self.time_limits
        result = pool.apply_async(
            trace_begun,
            args=(
                self._type,
                self.id,
                self._request_dict,
                self._body,
                self._content_type,
                self._content_encoding,
            ),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft or self._task.soft_time_limit,
            timeout=hard or self._task.time_limit,
            correlation_id=self.id,
        )
        self._apply_result = maybe(ref, result)
        return result

    def on_success(self: Any, outcome: tuple[Any, ...], **options: Any) -> Any:
        told, ended = outcome[:3], outcome[3] if len(outcome) > 3 else None
        if isinstance(told[2], float):
            self._jobbridge_settler.note_runtime(told[2])
        if ended is not None:
            self._jobbridge_settler.finish(self, ended, lambda: self._jobbridge_on_success(told, **options))
            return None
        try:
            return self._jobbridge_on_success(told, **options)
        finally:
            self._jobbridge_settler.look()

    def _jobbridge_give_back(self: Any) -> None:
        """Let the message wait in its queue as before; the job was not started."""
        task_ready(self)
        self._on_reject(logger, self._connection_errors, UNCOUNTED)
        self.acknowledged = True

    def on_failure(self: Any, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        if is_retried(self, exc_info):
            self._jobbridge_was_retried = True
            task_ready(self)
            self.acknowledge()
            self._jobbridge_settler.look()
            return None
        arguments = exc_info, *arguments
        try:
            return super().on_failure(*arguments, **options)  # type: ignore[misc]  # Celery's Request, behind it
        finally:
            if self._already_revoked or not options.get("return_ok"):  # its process was stopped, or lost
                note_stopped(self._app, self._context)
            self._jobbridge_settler.look()

    def on_timeout(self: Any, soft: bool, timeout: float) -> None:
        if self._jobbridge_was_retried:
            return
        super().on_timeout(soft, timeout)  # type: ignore[misc]  # Celery's Request, behind it
        self._jobbridge_settler.look()


def trace_begun(task: str, task_id: str, request: dict[str, Any], *message: Any) -> tuple[Any, ...]:
    """Run it in the pool's process. Celery's outcome, and the end that is still to be written, if it is.

    Source: celery 5.7, app/trace.py, `fast_trace_task`.
    """
    carried.take()
    app: Any = get_current_app()
    trace = fast_trace_task if app.use_fast_trace_task else trace_task_ret
    outcome = trace(task, task_id, request, *message)
    return (*outcome, carried.take())

"""Celery's worker, given messages by Temporal: the half that lives on the worker's own thread.

Celery's event loop (kombu's hub) owns requests, pool and timers. The activities live on the thread of Temporal's
client. They meet here: `take`, `revoke`, `let_go` may be called from any thread and go on in Celery's.

    activity ─take─► hub: on_task_received → strategy → Request → pool ─ack/reject─► Execution.settled ─► activity

What Celery leaves to the broker when a worker stops or loses its connection ("it will be delivered again") is
settled here instead: see `release_unstarted` and `release_all`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.exceptions import WorkerLostError
from celery.worker import state as worker_state

from jobbridge.app.execute.claim import record
from jobbridge.app.results.forms import not_registered
from jobbridge.app.worker.unknown_tasks import UnknownTasks
from jobbridge.core.events import Failed, Requeued
from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseError
from jobbridge.temporal.worker.execution import Execution, Settlement, SettlementKind, unknown_task
from jobbridge.temporal.worker.isolation import Isolation
from jobbridge.temporal.worker.request import failure

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: How long a job goes on when Temporal has given its activity up (it heard nothing from us), before it is stopped.
#: In that time the next attempt may come to this very worker, and takes over the running job.
ADOPTION_TIME = timedelta(seconds=5)


class WorkerHost:
    """The jobs that Temporal gave to this worker.

    Args:
        app: The worker's app.
        consumer: Celery's consumer.
    """

    def __init__(self, app: Celery, consumer: Any) -> None:
        self.app = app
        self._consumer = consumer
        self.isolation = Isolation(self)
        self._unknown = UnknownTasks(app, Engine.TEMPORAL)
        self._executions: dict[tuple[str, str | None], Execution] = {}
        self._lock = threading.Lock()
        self.on_message: Callable[[Any], None] | None = None
        self.is_open = True

    @property
    def executions(self) -> list[Execution]:
        with self._lock:
            return list(self._executions.values())

    # -- from the activities' thread

    def adopt(self, task_id: str, delivery: str | None, holder: object) -> Execution | None:
        """Give the execution of that message, if this worker has it still, to its new holder."""
        with self._lock:
            execution = self._executions.get((task_id, delivery))
            if execution is not None:
                execution.holder = holder
            return execution

    def holds(self, task_id: str) -> bool:
        """Whether a message of that task is in this worker."""
        return any(execution.task_id == task_id for execution in self.executions)

    def take(self, execution: Execution) -> None:
        """Hand a message to Celery's worker."""
        with self._lock:
            self._executions[execution.task_id, execution.delivery] = execution
        self._consumer.call_soon(self._take, execution)

    def give_up(self, execution: Execution, reason: str) -> None:
        """Fail a job without running it."""
        self._consumer.call_soon(self._give_up, execution, reason)

    def revoke(self, execution: Execution) -> None:
        """Stop a job for good: terminate its process, or tell the code to stop."""
        execution.is_revoked = True
        if not self._consumer.hub or self._is_solo:
            # The thread that would do it runs the job. The code asks `is_cancelled` itself.
            worker_state.revoked.add(execution.task_id)
        self._consumer.call_soon(self._revoke, execution)

    def let_go(self, execution: Execution, holder: object) -> None:
        """Temporal gave this activity up: stop the job soon, unless the next attempt comes here and adopts it."""
        with self._lock:
            if execution.holder is holder:
                execution.holder = None
        self._consumer.call_soon(self._let_go_later, execution)

    def forget(self, execution: Execution, holder: object) -> None:
        """The activity has reported the end of this execution."""
        with self._lock:
            if execution.holder is holder:
                self._executions.pop((execution.task_id, execution.delivery), None)
                if execution.is_revoked:
                    # A job may start anew under its id.
                    worker_state.revoked.discard(execution.task_id)

    # -- on the worker's thread

    def _take(self, execution: Execution) -> None:
        if not self.is_open or self.on_message is None:
            execution.settle(Settlement(kind=SettlementKind.RELEASED))
            return
        if execution.is_revoked:
            worker_state.revoked.add(execution.task_id)
        if execution.task_name not in self.app.tasks:
            queue = str(execution.message.delivery_info["routing_key"])
            pause = self._unknown.pause_for(execution.task_name, execution.task_id, queue)
            if pause is not None:  # the workflow waits, and asks again
                execution.settle(Settlement(kind=SettlementKind.REQUEUED, error="Not known to this worker."))
                return
            self._record_unknown(execution)
        try:
            self.on_message(execution.message)
        except Exception as error:
            logger.exception("temporal.message_not_taken", extra={"job_id": execution.task_id})
            execution.settle(failure(error))

    def _record_unknown(self, execution: Execution) -> None:
        """Say in the row what was asked for, before Celery notes that it could not be found."""
        unknown = unknown_task(execution, self.app.tasks)
        record(
            self.app,
            Failed(
                key=execution.key,
                attempt=None,
                error=f"{unknown.error_type}: {unknown.error}",
                result=not_registered(execution.task_name),
                type=execution.task_name,
                task_id=execution.task_id,
                engine=Engine.TEMPORAL,
                external_id=execution.workflow_id,
            ),
        )

    def _give_up(self, execution: Execution, reason: str) -> None:
        error = WorkerLostError(reason)
        try:
            self._mark_failed(execution, error)
        finally:
            execution.settle(failure(error))

    def _mark_failed(self, execution: Execution, error: BaseException) -> None:
        """Do what Celery does in the parent for a task whose process was lost (celery 5.7, Request.on_failure)."""
        task = self.app.tasks.get(execution.task_name)
        if task is None:
            return
        request_class = task.Request
        request = request_class(execution.message, app=self.app, hostname=self._consumer.hostname, task=task)
        context = request._context
        task.backend.mark_as_failure(request.id, error, request=context, store_result=request.store_errors)
        task.request_stack.push(context)
        try:
            signals.task_failure.send(
                sender=task,
                task_id=request.id,
                exception=error,
                args=request.args,
                kwargs=request.kwargs,
                traceback=None,
                einfo=None,
            )
        finally:
            task.request_stack.pop()

    def _revoke(self, execution: Execution) -> None:
        if execution.settled.done():
            return
        worker_state.revoked.add(execution.task_id)
        request = execution.request
        if request is None:
            return  # its message is still on the way here, and will find itself revoked
        if not execution.is_with_pool:
            request.revoked()
        elif self._can_terminate:
            request.terminate(self._consumer.pool)

    def _let_go_later(self, execution: Execution) -> None:
        self._consumer.timer.call_after(ADOPTION_TIME.total_seconds(), self._let_go_now, (execution,))

    def _let_go_now(self, execution: Execution) -> None:
        if execution.holder is not None:
            return
        with self._lock:
            self._executions.pop((execution.task_id, execution.delivery), None)
        if execution.settled.done():
            return
        logger.warning("temporal.job_taken_away", extra={"job_id": execution.task_id})
        execution.settle(Settlement(kind=SettlementKind.LOST))
        request = execution.request
        if request is None:
            return
        if execution.is_with_pool and self._can_terminate:
            # As Celery does with what a lost broker connection took away: stopped, and not marked as revoked.
            request.cancel(self._consumer.pool, emit_retry=False)
            self._give_the_row_up(execution)
        elif not execution.is_with_pool:
            request._already_revoked = True  # it is in a rate limit's bucket, and must not run from there

    def _give_the_row_up(self, execution: Execution) -> None:
        """Say that this worker runs the job no more: the one that Temporal gave it to waits for that."""
        try:
            row = self.app.jobs.get(execution.key)
        except DatabaseError as error:
            logger.warning(
                "temporal.row_not_given_up", extra={"job_id": execution.task_id, "error": str(error)}
            )
            return
        if row is not None and row.worker_number == self.app.worker_number:
            record(
                self.app,
                Requeued(key=row.key, attempt=row.attempt, reason="Temporal gave it to another worker."),
            )

    # -- when the worker stops

    def release_unstarted(self) -> None:
        """Give back what the pool does not have yet; Celery drops it at this point."""
        self.is_open = False
        for execution in self.executions:
            if not execution.is_with_pool:
                execution.settle(Settlement(kind=SettlementKind.RELEASED))

    def release_all(self) -> None:
        """Give back what is left when the pool is down."""
        self.is_open = False
        for execution in self.executions:
            if not execution.has_begun.is_set():
                execution.settle(Settlement(kind=SettlementKind.RELEASED))
            else:
                execution.settle_as_stopped()

    @property
    def _is_solo(self) -> bool:
        return type(self._consumer.pool).__module__ == "celery.concurrency.solo"

    @property
    def _can_terminate(self) -> bool:
        return isinstance(self._consumer.pool, PreforkPool)

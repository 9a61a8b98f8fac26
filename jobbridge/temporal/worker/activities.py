"""The activities: the half of the worker that lives on Temporal's thread.

`executeJobHandler` makes a message, hands it to Celery's worker and waits for its acknowledgement, telling Temporal
every second that it lives. The others keep `books`.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from temporalio import activity

from jobbridge.app.execute.claim import is_at_most_once
from jobbridge.core.envelope import Envelope
from jobbridge.core.events import Cancelled
from jobbridge.core.keys import JobKey, TenantId, job_id_for
from jobbridge.core.light import as_light
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.errors import DatabaseError, JobBridgeError
from jobbridge.temporal.schedules.fires import begin_fire
from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import (
    ACKNOWLEDGED,
    BEGUN,
    ExecuteOrder,
    Outcome,
    OutcomeKind,
    instant_of,
)
from jobbridge.temporal.wire.messages import MissingMessage, envelope_of
from jobbridge.temporal.worker.books import Books, key_of
from jobbridge.temporal.worker.execution import Execution, Settlement, SettlementKind
from jobbridge.temporal.worker.incoming import message_for
from jobbridge.temporal.worker.light import LightAttempt
from jobbridge.temporal.worker.outcome import ContinuationUnread, JobFailed, outcome_of
from jobbridge.temporal.workflows.execution import max_lost

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.temporal.worker.bridge import WorkerHost

logger = logging.getLogger(__name__)

#: An answer to it brings what Temporal has to say: a cancellation reaches the job within so long.
HEARTBEAT_INTERVAL = timedelta(seconds=1)
_TICK = timedelta(milliseconds=200)
#: So long a job that Temporal gives to this worker waits for another one that has it still and lives.
LONGEST_WAIT = timedelta(minutes=10)


_NOT_TWICE = "The worker was lost while the task ran, and the task is not to be run twice (acks_late=False)."


class NoFire(Exception):
    """What a schedule of Temporal started is none of its fires, or has been dealt with."""


class NotYet(Exception):
    """A fire waits for an earlier job of its schedule."""


class NotDue(Exception):
    """The message is to be executed later: a worker was lost between a retry and the next attempt."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__()
        self.message = message


class JobActivities:
    """What a Temporal worker of JobBridge can do.

    Args:
        app: Whose tasks run.
        host: The Celery worker that runs them.
        queue: The Celery queue that this worker's task queue stands for.
        executor: For what blocks on the database.
    """

    def __init__(self, app: Celery, host: WorkerHost, *, queue: str, executor: ThreadPoolExecutor) -> None:
        self._app = app
        self._host = host
        self._queue = queue
        self._executor = executor
        self._books = Books(app, executor=executor)

    @property
    def all(self) -> list[Any]:
        return [self.execute_job_handler, *self._books.all]

    @activity.defn(name=contract.EXECUTE_JOB_HANDLER)
    async def execute_job_handler(self, document: Any) -> Any:
        info = activity.info()
        attempt = LightAttempt.of(info, document)
        if attempt is None:
            order = ExecuteOrder.from_json(document, workflow_id=str(info.workflow_id))
            return (await self._outcome_of(order, None))[0].to_json()
        order = attempt.order(document, info.activity_id)
        while True:
            outcome, is_cancelled = await self._outcome_of(order, attempt)
            pause = attempt.pause_before_the_next(outcome)
            if pause is None or is_cancelled:
                return attempt.end(outcome, info.activity_id, is_cancelled=is_cancelled)
            attempt = attempt.goes_on()
            order = replace(order, message=outcome.message, is_redelivery=False)
            await asyncio.sleep(pause.total_seconds())

    async def _outcome_of(self, order: ExecuteOrder, attempt: LightAttempt | None) -> tuple[Outcome, bool]:
        """Execute it; tells how that ended, and whether Temporal was asked to cancel it."""
        holder = object()
        try:
            execution = await self._execution(order, holder, attempt)
        except NoFire as no_fire:
            return Outcome(kind=OutcomeKind.SKIPPED, error=str(no_fire)), False
        except NotYet as not_yet:
            return Outcome(kind=OutcomeKind.REQUEUED, error=str(not_yet)), False
        except NotDue as not_due:
            return Outcome(kind=OutcomeKind.CONTINUED, message=not_due.message), False
        except DatabaseError as error:
            if attempt is None and contract.was_acknowledged(activity.info().heartbeat_details, None):
                raise  # the activity's next attempt hears it, another activity would not
            # It cannot be read now what is to be done; or another release's worker may. It is asked for again.
            return Outcome(kind=OutcomeKind.REQUEUED, error=f"{error} {error.hint}"), False
        beating = asyncio.create_task(_beat(execution))
        try:
            settlement = await self._settlement(execution, holder)
            outcome = await self._outcome(execution, settlement)
        finally:
            beating.cancel()
            self._host.isolation.leave(execution)
            if execution.settled.done():
                self._host.forget(execution, holder)
        return outcome, execution.is_revoked

    # -- beginning

    async def _execution(
        self, order: ExecuteOrder, holder: object, attempt: LightAttempt | None
    ) -> Execution:
        info = activity.info()
        try:
            execution: Execution = await self._blocking(self._prepared, order, info, attempt)
        except DatabaseError:
            raise
        except JobBridgeError as error:
            settlement = Settlement(
                kind=SettlementKind.FAILED,
                error=f"{error} {error.hint}".strip(),
                error_type=type(error).__name__,
            )
            raise JobFailed(settlement) from error
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            # Made by hand, or by a release that we do not know: it will not be better the next time.
            why = f"The workflow's message cannot be read: {error!r}"
            unreadable = Settlement(
                kind=SettlementKind.FAILED, error=why, error_type="UnreadableMessage", traceback=None
            )
            raise JobFailed(unreadable) from error
        if execution.settled.done():
            return execution
        running = self._host.adopt(execution.task_id, execution.delivery, holder)
        if running is not None:
            logger.info("temporal.job_adopted", extra={"job_id": running.task_id})
            return running
        if order.is_redelivery or (info.attempt > 1 and attempt is None):
            await self._until_free(execution, info)
        execution.holder = holder
        reason = order.give_up
        if contract.was_acknowledged(info.heartbeat_details, execution.delivery) or (
            (order.is_redelivery or info.attempt > 1) and await self._blocking(self._had_begun, execution)
        ):
            reason = reason or _NOT_TWICE
        limit = self._max_crashes(order) if attempt is None else attempt.max_lost
        if info.attempt > limit and attempt is None and contract.has_begun(info.heartbeat_details):
            reason = (
                reason or f"Worker lost, {limit} times."
            )  # its workflow knows of no limit below the usual
        if reason is not None and not await self._blocking(self._is_over, execution):
            self._host.give_up(execution, reason)
        else:
            execution.is_suspect = info.attempt >= limit if attempt is None else attempt.is_last
            await self._host.isolation.turn(execution)
            self._host.take(execution)
        return execution

    def _max_crashes(self, order: ExecuteOrder) -> int:
        """Give how many workers it may take with it. What no app sent (the fire of a schedule) goes by ours."""
        return max_lost(order.message) if order.message is not None else self._app.settings.max_crashes

    async def _until_free(self, execution: Execution, info: activity.Info) -> None:
        """Wait while another worker, which lives, still runs the job: Temporal lost sight of it, and not it of the job.

        That worker lets it end if it does so soon, else it stops the job and gives the row up.
        """
        waits_until = asyncio.get_running_loop().time() + LONGEST_WAIT.total_seconds()
        while asyncio.get_running_loop().time() < waits_until:
            if not await self._blocking(self._is_held_elsewhere, execution):
                return
            logger.info("temporal.job_held_elsewhere", extra={"job_id": execution.task_id})
            activity.heartbeat(*info.heartbeat_details)  # what they say must outlive this attempt, too
            await asyncio.sleep(1.0)

    def _is_held_elsewhere(self, execution: Execution) -> bool:
        try:
            row = self._app.jobs.get(execution.key)
            if (
                row is None
                or row.status is not JobStatus.PROCESSING
                or str(row.delivery) != execution.delivery
            ):
                return False
            number = row.worker_number
            if number is None or number == self._app.worker_number:
                return False
            return any(worker.is_alive and worker.number == number for worker in self._app.workers.all())
        except DatabaseError:
            return False  # books that cannot be read stop no job

    def _had_begun(self, execution: Execution) -> bool:
        """Whether a worker that is gone began what must not run twice: Temporal may not have heard of that."""
        if not is_at_most_once(self._app.tasks.get(execution.task_name)) or self._is_held_elsewhere(
            execution
        ):
            return False
        try:
            row = self._app.jobs.get(execution.key)
        except DatabaseError:
            return False  # then it does not begin: its start has to be in the books first
        return (
            row is not None and row.status is JobStatus.PROCESSING and str(row.delivery) == execution.delivery
        )

    def _is_over(self, execution: Execution) -> bool:
        """Whether its row has ended, or goes on by another message: then that is told, whoever was lost since."""
        try:
            row = self._app.jobs.get(execution.key)
        except DatabaseError:
            return False
        if row is None or row.delivery is None:
            return False
        return row.status in FINAL or str(row.delivery) != execution.delivery

    def _prepared(self, order: ExecuteOrder, info: activity.Info, attempt: LightAttempt | None) -> Execution:
        external_id = attempt.external_id if attempt else str(info.workflow_id)
        run_id = attempt.run_id if attempt else str(info.workflow_run_id)
        handed_over_by = order.handover or run_id
        if order.fire is not None and order.message is None:
            begun = begin_fire(self._app, order.fire, workflow_id=external_id, run_id=handed_over_by)
            if begun.skipped is not None:
                raise NoFire(begun.skipped)
            if begun.waits is not None:
                raise NotYet(begun.waits)
            order = replace(order, message=begun.message)

        def execution_of(tenant: str, task_id: str, task_name: str, delivery: str) -> Execution:
            return Execution(
                key=JobKey(tenant=TenantId(tenant), job_id=job_id_for(task_id)),
                task_id=task_id,
                task_name=task_name,
                delivery=delivery,
                workflow_id=external_id,
                run_id=run_id,
                light=attempt,
            )

        try:
            envelope = self._newest(order, attempt) or envelope_of(
                order, self._app, queue=self._queue, run_id=handed_over_by, load=self._stored_message
            )
        except MissingMessage:
            # The row says what became of the job: its end was written, and whoever wrote it was lost before Temporal
            # heard; or it goes on by another message.
            message = order.message or {}
            gone_on = execution_of(message["tenant"], message["id"], message["task"], message["delivery"])
            if self._app.jobs.get(gone_on.key) is None:
                raise
            gone_on.settle(Settlement(kind=SettlementKind.IGNORED))
            return gone_on
        if attempt is not None:  # also if its sender did not know: its retries go on here
            envelope = replace(envelope, headers=as_light(envelope.headers))
        execution = execution_of(envelope.tenant, envelope.id, envelope.task, envelope.delivery)
        is_redelivery = order.is_redelivery or (info.attempt > 1 and attempt is None)
        message_for(envelope, execution, self._app, is_redelivery=is_redelivery)
        return execution

    def _newest(self, order: ExecuteOrder, attempt: LightAttempt | None) -> Envelope | None:
        """Give the message by which a job without a workflow goes on; None: the one it was started with.

        Raises:
            NotDue: It is to be executed later.
        """
        if attempt is None or not attempt.may_have_gone_on:
            return None
        told = order.message or {"tenant": order.job.tenant_id, "id": order.job.job_id}
        stored = self._app.jobs.delivery_of(key_of(self._app, str(told["id"]), told["tenant"]))
        if stored is None or stored.message is None:
            return None
        envelope = Envelope.from_json(stored.message)
        due = instant_of(envelope.eta)
        if due is not None and due > datetime.now(UTC) + _TICK:
            raise NotDue(stored.message)
        return envelope

    def _stored_message(self, key: JobKey) -> dict[str, Any] | None:
        stored = self._app.jobs.delivery_of(key)
        return None if stored is None else stored.message

    # -- waiting

    async def _settlement(self, execution: Execution, holder: object) -> Settlement:
        settled = asyncio.wrap_future(execution.settled)
        while True:
            try:
                return await asyncio.shield(settled)
            except asyncio.CancelledError:
                await self._on_cancelled(execution, holder)

    async def _on_cancelled(self, execution: Execution, holder: object) -> None:
        """Act on what Temporal says; returns when the job is still to be waited for.

        Raises:
            asyncio.CancelledError: It is not ours any more.
        """
        details = activity.cancellation_details()
        if details is None or details.not_found or details.timed_out or details.reset:
            self._host.let_go(execution, holder)
            raise asyncio.CancelledError
        current = asyncio.current_task()
        if current is not None:
            current.uncancel()
        if details.cancel_requested:
            if execution.light is not None:  # else its workflow has said so
                await self._blocking(self._record_cancelled, execution)
            self._host.revoke(execution)
        # Paused, or the worker shuts down: the job ends as it will.

    def _record_cancelled(self, execution: Execution) -> None:
        try:
            self._app.recorder.record(Cancelled(key=execution.key, reason="The activity was cancelled."))
        except DatabaseError as error:
            logger.warning("job.status_not_recorded", extra={"status": "cancelled", "error": str(error)})

    # -- ending

    async def _outcome(self, execution: Execution, settlement: Settlement) -> Outcome:
        pause = 0.2
        while True:
            try:
                outcome: Outcome = await self._blocking(outcome_of, self._app, execution, settlement)
                return outcome
            except ContinuationUnread as error:
                logger.warning(
                    "temporal.retry_not_read", extra={"job_id": execution.task_id, "error": str(error)}
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _blocking(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


async def _beat(execution: Execution) -> None:
    """Tell Temporal that the job lives, and at once when it began and must not be run twice."""
    has_told, waited = False, timedelta()
    while True:
        await asyncio.sleep(_TICK.total_seconds())
        waited += _TICK
        must_tell = execution.acks_early and execution.has_begun.is_set() and not has_told
        if must_tell or waited >= HEARTBEAT_INTERVAL:
            has_told = execution.acks_early and execution.has_begun.is_set()
            activity.heartbeat(execution.told({ACKNOWLEDGED: has_told, BEGUN: True}))
            waited = timedelta()

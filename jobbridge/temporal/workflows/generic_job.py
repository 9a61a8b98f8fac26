"""The generic workflow: one per job, one activity per execution.

It decides nothing about the job's row. The activity records what happens in an execution; the workflow records
only what happens outside of one (`books`: cancelled while it waits, progress told by a signal). Imports nothing but
temporalio, the standard library and the contract, because Temporal runs it again and again from its history.

Its history stays small however long the job lives: arguments are in it once (`wire.references`), a handler's progress
never (`live`), and whenever Temporal suggests it, a run that executes nothing at that moment hands on to the next
(`carried`). While an execution runs it cannot: its activity belongs to the run.

Changing it: anything that alters the order of commands needs `workflow.patched("…")`, and a new recorded
history in tests/unit/temporal/histories.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, is_cancelled_exception
from temporalio.exceptions import TimeoutError as ActivityTimeout
from temporalio.workflow import ActivityHandle, HandlerUnfinishedPolicy

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import ExecuteOrder, JobInput, JobResult, Outcome, OutcomeKind
from jobbridge.temporal.wire.fire import Fire
from jobbridge.temporal.wire.references import carried
from jobbridge.temporal.wire.signals import CancelRequest, ProgressUpdate, ToldEnd
from jobbridge.temporal.workflows import books
from jobbridge.temporal.workflows.carried import Carried, drain, hand_on, is_due
from jobbridge.temporal.workflows.execution import MAX_LOST, max_lost, start_execution
from jobbridge.temporal.workflows.fires import name_job, started_by
from jobbridge.temporal.workflows.live import live_progress
from jobbridge.temporal.workflows.progress import ToldProgress

REQUEUE_DELAY = timedelta(seconds=1)
MAX_REQUEUE_DELAY = timedelta(seconds=30)
#: Executions in one run, whatever Temporal suggests.
MAX_EXECUTIONS = 200


@workflow.defn(name=contract.WORKFLOW)
class GenericJobWorkflow:
    """Carries one job from its start to its end."""

    def __init__(self) -> None:
        self._step = "queued"
        self._progress = ToldProgress()
        self._error: str | None = None
        self._attempt = 0
        self._lost = self._requeued = 0
        self._max_lost = MAX_LOST
        self._give_up: str | None = None
        self._started_at: str | None = None
        self._completed_at: str | None = None
        self._cancel: CancelRequest | None = None
        self._is_cancelled_natively = False
        self._told_end: ToldEnd | None = None
        self._resumption: dict[str, Any] | None = None
        self._delivery: str | None = None
        self._handover: str | None = None
        self._job: JobInput | None = None
        self._fire: Fire | None = None

    @workflow.run
    async def run(self, document: Any = None) -> dict[str, Any]:
        job = self._read(document)
        message, is_waiting, is_redelivery = self._take_up(job)
        executions = 0
        try:
            while True:
                if is_waiting:
                    message = await self._wait_for_children(job, message)
                    is_waiting = is_redelivery = False
                message = await self._wait_until_due(job, message, is_redelivery=is_redelivery)
                if (end := self._told_end) is not None:
                    return self._end_as_told(job, end)
                if self._cancel is not None or self._is_cancelled_natively:
                    return await self._end_unstarted(job)
                if executions >= MAX_EXECUTIONS or is_due():
                    await self._continue_as_new(job, message, is_redelivery=is_redelivery)
                    continue
                executions += 1
                outcome = await self._execute(job, message, is_redelivery=is_redelivery)
                if (end := self._told_end) is not None:
                    return self._end_as_told(job, end)
                self._attempt = outcome.attempt or self._attempt
                match outcome.kind:
                    case OutcomeKind.WAITING:
                        is_waiting = True
                    case OutcomeKind.COMPLETED | OutcomeKind.HANDED_OVER:
                        if self._has_resumption:
                            message, is_redelivery = self._resumption, False
                            continue
                        return self._succeed(job, outcome)
                    case OutcomeKind.CANCELLED | OutcomeKind.EXPIRED | OutcomeKind.SKIPPED:
                        return self._stop(job, outcome)
                    case OutcomeKind.CONTINUED:
                        message, is_redelivery = outcome.message, False
                        self._step, self._error = "retrying", outcome.error
                        self._lost = self._requeued = 0
                    case OutcomeKind.REQUEUED | OutcomeKind.LOST | OutcomeKind.RELEASED:
                        is_redelivery = True
                        await self._requeue(outcome)
        except asyncio.CancelledError:
            # Cancelled natively, and nothing was running: the row says so before the workflow ends.
            self._is_cancelled_natively = True
            return await self._end_unstarted(job)

    # -- the parts of a run, in their order

    def _read(self, document: Any) -> JobInput:
        self._fire = started_by()
        names_itself = self._fire.job_id if self._fire else workflow.info().workflow_id
        try:
            self._job = JobInput.from_json(document, workflow_id=names_itself)
        except contract.InvalidJobInput as error:
            raise self._invalid(str(error)) from None
        # Those that began with an earlier release carry it as they began to.
        if (why := contract.why_not_carried(document)) and workflow.patched("refuses-what-no-job-can-have"):
            raise self._invalid(why)
        if self._fire is not None:
            name_job(self._fire)
        return self._job

    def _invalid(self, why: str) -> ApplicationError:
        # Any other exception fails the workflow's task, which Temporal tries again for ever. So does a text too long.
        why = contract.cut(why)
        self._fail_state(why)
        return ApplicationError(why, type="InvalidJobInput", non_retryable=True)

    def _take_up(self, job: JobInput) -> tuple[dict[str, Any] | None, bool, bool]:
        """Take what the client, or the run before this one, left in the memo.

        Returns:
            The message; whether the job waits for its children; whether an execution of the message began before.
        """
        try:
            state = Carried.from_memo()
            message = contract.message_of(workflow.memo_value(contract.MESSAGE_MEMO, default=None))
        except (TypeError, ValueError) as error:
            raise self._invalid(str(error)) from None
        self._attempt, self._lost, self._requeued = state.attempt, state.lost, state.requeued
        self._handover = state.handover
        self._started_at, self._give_up, self._delivery = state.started_at, state.give_up, state.delivery
        # A signal may have come with this run's beginning: then it is handled by now, and is the newer.
        self._resumption = self._resumption or state.resumption
        self._step, self._error = state.step or self._step, state.error
        self._progress.take_up(state.progress, state.message)
        self._progress.is_unwritten |= state.is_unwritten
        if self._progress.is_unwritten:
            self._catching_up = asyncio.create_task(self._progress.catch_up(job))
        return message, state.is_waiting, state.is_redelivery

    async def _continue_as_new(
        self,
        job: JobInput,
        message: dict[str, Any] | None,
        *,
        is_waiting: bool = False,
        is_redelivery: bool = False,
    ) -> None:
        """Hand on to the next run; returns if meanwhile something came that ends the job.

        A signal that comes between this and Temporal's answer has Temporal refuse the answer, and is handled first.
        """
        self._progress.stop()
        await drain(self._progress)
        if self._is_to_stop:
            self._progress.go_on()
            return
        state = Carried(
            attempt=self._attempt,
            lost=self._lost,
            requeued=self._requeued,
            started_at=self._started_at,
            give_up=self._give_up,
            delivery=self._delivery,
            handover=self._handover or workflow.info().run_id,
            resumption=carried(self._resumption) if self._has_resumption else None,
            is_waiting=is_waiting,
            is_redelivery=is_redelivery,
            step=self._step,
            error=self._error,
            progress=self._progress.progress,
            message=self._progress.message,
            is_unwritten=self._progress.is_unwritten,
        )
        hand_on(job, message, self._fire, state)

    async def _wait_until_due(
        self, job: JobInput, message: dict[str, Any] | None, *, is_redelivery: bool
    ) -> dict[str, Any] | None:
        """Wait for the message's time, or for what wakes its job; gives the message to execute."""
        due, is_woken = contract.instant_of((message or {}).get("eta")), bool((message or {}).get("waits"))
        if not is_woken if due is None else due <= workflow.now():
            return message
        self._step = "waiting" if is_woken else "scheduled" if self._step == "queued" else self._step
        await self._sleep(None if due is None else due - workflow.now(), message)
        if self._is_woken(message):
            return self._resumption
        if not self._is_to_stop and is_due():
            await self._continue_as_new(job, message, is_redelivery=is_redelivery)
        return message

    async def _wait_for_children(
        self, job: JobInput, message: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Wait for the message that the last child sends, unless somebody cancels the job."""
        self._step = "waiting"
        self._lost = self._requeued = 0
        try:
            while not self._has_resumption and not self._is_to_stop:
                await workflow.wait_condition(lambda: self._has_resumption or self._is_to_stop or is_due())
                if not self._has_resumption and not self._is_to_stop:
                    await self._continue_as_new(job, message, is_waiting=True)
        except asyncio.CancelledError:
            self._is_cancelled_natively = True
        return self._resumption if self._has_resumption else message

    @property
    def _is_to_stop(self) -> bool:
        return self._cancel is not None or self._told_end is not None or self._is_cancelled_natively

    @property
    def _has_resumption(self) -> bool:
        """Whether a message came that was not executed yet; the activity may have brought it first."""
        return self._resumption is not None and self._resumption.get("delivery") != self._delivery

    def _is_woken(self, message: dict[str, Any] | None) -> bool:
        return self._has_resumption and contract.wakes(message, self._resumption)

    async def _sleep(self, duration: timedelta | None, message: dict[str, Any] | None = None) -> None:
        """Sleep, unless somebody cancels the job, or wakes it, or this run is to hand on; None: for ever."""
        try:
            await workflow.wait_condition(
                lambda: self._is_to_stop or is_due() or self._is_woken(message), timeout=duration
            )
        except TimeoutError:
            return
        except asyncio.CancelledError:
            self._is_cancelled_natively = True

    async def _execute(
        self, job: JobInput, message: dict[str, Any] | None, *, is_redelivery: bool
    ) -> Outcome:
        self._step = "processing"
        self._attempt += 1
        self._delivery, self._max_lost = (message or {}).get("delivery"), max_lost(message)
        self._started_at = self._started_at or workflow.now().isoformat()
        handle = start_execution(
            ExecuteOrder(
                job=job,
                message=carried(message),
                is_redelivery=is_redelivery,
                give_up=self._give_up,
                fire=self._fire if message is None else None,
                handover=self._handover if message is None else None,
            )
        )
        try:
            await self._until_done_or_cancelled(handle)
            return Outcome.from_json(await handle)
        except ActivityError as error:
            if self._told_end is not None:
                return Outcome(kind=OutcomeKind.CANCELLED)
            return self._not_executed(error)

    async def _until_done_or_cancelled(self, handle: ActivityHandle[Any]) -> None:
        """Wait for the execution; when the job is cancelled, write it down and pass it on to the running code."""
        try:
            await workflow.wait_condition(lambda: handle.done() or self._is_to_stop)
        except asyncio.CancelledError:
            self._is_cancelled_natively = True
        if not handle.done():
            assert self._job is not None
            if self._told_end is None:  # else the row says already how it ended
                await books.record_cancelled(self._job, self._cancel)
            handle.cancel()

    def _not_executed(self, error: ActivityError) -> Outcome:
        """Tell a job that failed from one that could not be executed."""
        cause = error.cause
        if isinstance(cause, ApplicationError) and cause.non_retryable:
            if self._has_resumption:  # it was run again before this workflow had closed
                return Outcome(kind=OutcomeKind.WAITING)
            self._fail_state(cause.message)
            raise cause
        if is_cancelled_exception(error):
            return Outcome(kind=OutcomeKind.CANCELLED)  # nobody had begun with it
        if isinstance(cause, ActivityTimeout) and not contract.has_begun(cause.last_heartbeat_details):
            return Outcome(kind=OutcomeKind.REQUEUED, error="Its worker fell silent before it had begun.")
        if self._give_up is not None:
            self._fail_state(self._give_up)
            raise ApplicationError(self._give_up, type="WorkerLostError", non_retryable=True) from error
        self._lost = self._max_lost
        why = cause.type.name.lower() if isinstance(cause, ActivityTimeout) and cause.type else str(cause)
        return Outcome(
            kind=OutcomeKind.LOST, error=f"{self._max_lost} workers fell silent while they ran it ({why})."
        )

    async def _requeue(self, outcome: Outcome) -> None:
        self._step, self._error = "queued", outcome.error
        if outcome.kind is OutcomeKind.RELEASED:
            self._attempt -= 1
            return
        is_lost = outcome.kind is OutcomeKind.LOST
        self._lost, self._requeued = self._lost + is_lost, self._requeued + (not is_lost)
        if self._lost >= self._max_lost:
            # A worker is asked once more, to fail the job without running it: so callbacks, result and row learn.
            self._give_up = f"Worker lost, {self._max_lost} times: {outcome.error}"
            return
        tries = self._requeued + self._lost
        await self._sleep(min(REQUEUE_DELAY * 2 ** min(tries - 1, 10), MAX_REQUEUE_DELAY))

    # -- the ends

    def _succeed(self, job: JobInput, outcome: Outcome) -> dict[str, Any]:
        self._step, self._progress.progress, self._error = "completed", 100.0, None
        return self._result(job, success=True, result=outcome.result)

    def _stop(self, job: JobInput, outcome: Outcome) -> dict[str, Any]:
        self._step = outcome.kind.value
        if self._is_cancelled_natively and outcome.kind is OutcomeKind.CANCELLED:
            self._completed_at = workflow.now().isoformat()
            raise CancelledError("The job was cancelled.")
        reason = self._cancel.reason if self._cancel else outcome.error
        self._error = f"{outcome.kind.value}: {reason}" if reason else outcome.kind.value
        return self._result(job, success=False, error=self._error)

    async def _end_unstarted(self, job: JobInput) -> dict[str, Any]:
        await books.record_cancelled(job, self._cancel)
        return self._stop(job, Outcome(kind=OutcomeKind.CANCELLED))

    def _end_as_told(self, job: JobInput, end: ToldEnd) -> dict[str, Any]:
        """End as the row has ended: somebody who may has compared the two."""
        match end.status:
            case "completed":
                return self._succeed(job, Outcome(kind=OutcomeKind.COMPLETED, result=end.result))
            case "failed":
                self._fail_state(end.error or "failed")
                raise ApplicationError(end.error or "failed", type=end.error_type, non_retryable=True)
        return self._stop(job, Outcome(kind=OutcomeKind(end.status), error=end.error))

    def _result(
        self, job: JobInput, *, success: bool, error: str | None = None, result: Any = None
    ) -> dict[str, Any]:
        self._completed_at = workflow.now().isoformat()
        return JobResult(
            success=success, job_id=job.job_id, completed_at=self._completed_at, error=error, result=result
        ).to_json()

    def _fail_state(self, error: str) -> None:
        self._step, self._error, self._completed_at = "failed", error, workflow.now().isoformat()

    # -- signals and the query

    @workflow.signal(name=contract.CANCEL_JOB)
    def cancel_job(self, document: Any = None) -> None:
        self._cancel = self._cancel or CancelRequest.from_json(document)

    @workflow.signal(name=contract.UPDATE_PROGRESS, unfinished_policy=HandlerUnfinishedPolicy.ABANDON)
    async def update_progress(self, document: Any = None) -> None:
        update = ProgressUpdate.from_json(document)
        if update is not None:
            await self._progress.take(update, self._job)

    @workflow.signal(name=contract.RESUME_JOB)
    def resume_job(self, document: Any = None) -> None:
        with suppress(contract.InvalidJobInput):
            self._resumption = contract.message_of(document) or self._resumption

    @workflow.signal(name=contract.END_JOB)
    def end_job(self, document: Any = None) -> None:
        self._told_end = self._told_end or ToldEnd.from_json(document)

    @workflow.query(name=contract.GET_JOB_STATE)
    def get_job_state(self) -> dict[str, Any]:
        progress, message = self._progress.progress, self._progress.message
        if self._job is not None and self._step in ("processing", "waiting"):
            live = live_progress(self._job.tenant_id, self._job.job_id)
            if live is not None and live.progress is not None:
                progress, message = live.progress, live.message
        state = {
            "step": self._step,
            "progress": progress,
            "attempt": self._attempt,
            "message": message,
            "error": self._error,
            "startedAt": self._started_at,
            "completedAt": self._completed_at,
            "cancelRequested": self._cancel.to_json() if self._cancel else None,
        }
        return {name: value for name, value in state.items() if value is not None}

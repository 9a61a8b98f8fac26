"""The generic workflow: one per job, one activity per execution.

It decides nothing about the job's row. The activity records what happens in an execution; the workflow records
only what happens outside of one (cancelled while it waits, progress told by a signal). Imports nothing but temporalio,
the standard library and the contract, because Temporal runs it again and again from its history.

Changing it: anything that alters the order of commands needs `workflow.patched("…")`, and a new recorded
history in tests/unit/temporal/histories.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, is_cancelled_exception
from temporalio.exceptions import TimeoutError as ActivityTimeout
from temporalio.workflow import ActivityCancellationType, ActivityHandle, HandlerUnfinishedPolicy

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import (
    CancelRequest,
    ExecuteOrder,
    JobInput,
    JobResult,
    Outcome,
    OutcomeKind,
)
from jobbridge.temporal.wire.fire import Fire

#: How many workers, and how many pool processes, one message may take with it before it counts as poison.
MAX_LOST = 5
REQUEUE_DELAY = timedelta(seconds=1)
MAX_REQUEUE_DELAY = timedelta(seconds=30)
#: Executions in one run; then the workflow continues as new, so that its history stays small.
MAX_EXECUTIONS = 200


@workflow.defn(name=contract.WORKFLOW)
class GenericJobWorkflow:
    """Carries one job from its start to its end."""

    def __init__(self) -> None:
        self._step = "queued"
        self._progress = 0.0
        self._message: str | None = None
        self._error: str | None = None
        self._attempt = 0
        self._lost = 0
        self._requeued = 0
        self._give_up: str | None = None
        self._started_at: str | None = None
        self._completed_at: str | None = None
        self._cancel: CancelRequest | None = None
        self._is_cancelled_natively = False
        self._is_recording_progress = False
        self._resumption: dict[str, Any] | None = None
        self._delivery: str | None = None
        self._job: JobInput | None = None
        self._fire: Fire | None = None

    @workflow.run
    async def run(self, document: Any = None) -> dict[str, Any]:
        job = self._read(document)
        message = self._resume()
        executions = 0
        is_redelivery = self._requeued + self._lost > 0
        try:
            while True:
                await self._wait_until_due(message)
                if self._cancel is not None or self._is_cancelled_natively:
                    return await self._end_unstarted(job)
                if executions >= MAX_EXECUTIONS:
                    self._continue_as_new(job, message)
                executions += 1
                outcome = await self._execute(
                    ExecuteOrder(
                        job=job,
                        message=message,
                        is_redelivery=is_redelivery,
                        give_up=self._give_up,
                        fire=self._fire if message is None else None,
                    )
                )
                self._attempt = outcome.attempt or self._attempt
                match outcome.kind:
                    case OutcomeKind.WAITING:
                        message, is_redelivery = await self._wait_for_children(message), False
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
        self._fire = _fire()
        names_itself = self._fire.job_id if self._fire else workflow.info().workflow_id
        try:
            self._job = JobInput.from_json(document, workflow_id=names_itself)
        except contract.InvalidJobInput as error:
            raise self._invalid(str(error)) from None
        # Those that began with an earlier release carry it as they began to.
        if (why := contract.why_not_carried(document)) and workflow.patched("refuses-what-no-job-can-have"):
            raise self._invalid(why)
        return self._job

    def _invalid(self, why: str) -> ApplicationError:
        # Any other exception fails the workflow's task, which Temporal tries again for ever.
        self._fail_state(why)
        return ApplicationError(why, type="InvalidJobInput", non_retryable=True)

    def _resume(self) -> dict[str, Any] | None:
        """Take what the client, or the run before this one, left in the memo."""
        try:
            carried = dict(workflow.memo_value(contract.STATE_MEMO, default=None) or {})
            self._attempt = int(carried.get("attempt", 0))
            self._lost = int(carried.get("lost", 0))
            self._requeued = int(carried.get("requeued", 0))
            self._started_at = carried.get("startedAt")
            return contract.message_of(workflow.memo_value(contract.MESSAGE_MEMO, default=None))
        except (TypeError, ValueError) as error:
            raise self._invalid(str(error)) from None

    def _continue_as_new(self, job: JobInput, message: dict[str, Any] | None) -> NoReturn:
        state: dict[str, Any] = {"attempt": self._attempt, "startedAt": self._started_at}
        state |= {"lost": self._lost, "requeued": self._requeued}
        memo: dict[str, Any] = {contract.STATE_MEMO: state}
        if self._fire is not None:
            memo[contract.SCHEDULE_MEMO] = self._fire.memo()
        if message is not None:
            memo[contract.MESSAGE_MEMO] = message
        workflow.continue_as_new(job.to_json(), memo=memo)

    async def _wait_until_due(self, message: dict[str, Any] | None) -> None:
        due = contract.instant_of((message or {}).get("eta"))
        if due is None or due <= workflow.now():
            return
        self._step = "scheduled" if self._step == "queued" else self._step
        await self._sleep(due - workflow.now())

    async def _wait_for_children(self, message: dict[str, Any] | None) -> dict[str, Any] | None:
        """Wait for the message that the last child sends, unless somebody cancels the job."""
        self._step = "waiting"
        self._lost = self._requeued = 0
        try:
            await workflow.wait_condition(lambda: self._has_resumption or self._cancel is not None)
        except asyncio.CancelledError:
            self._is_cancelled_natively = True
        return self._resumption if self._has_resumption else message

    @property
    def _has_resumption(self) -> bool:
        """Whether a message came that was not executed yet; the activity may have brought it first."""
        return self._resumption is not None and self._resumption.get("delivery") != self._delivery

    async def _sleep(self, duration: timedelta) -> None:
        """Sleep, unless somebody cancels the job."""
        try:
            await workflow.wait_condition(lambda: self._cancel is not None, timeout=duration)
        except TimeoutError:
            return
        except asyncio.CancelledError:
            self._is_cancelled_natively = True

    async def _execute(self, order: ExecuteOrder) -> Outcome:
        self._step = "processing"
        self._attempt += 1
        self._delivery = (order.message or {}).get("delivery")
        self._started_at = self._started_at or workflow.now().isoformat()
        handle = self._start_activity(order)
        try:
            await self._until_done_or_cancelled(handle)
            return Outcome.from_json(await handle)
        except ActivityError as error:
            return self._not_executed(error)

    def _start_activity(self, order: ExecuteOrder) -> ActivityHandle[Any]:
        message = order.message or {}
        hard_limit = (message.get("timelimit") or [None])[0]
        return workflow.start_activity(
            contract.EXECUTE_JOB_HANDLER,
            order.to_json(),
            heartbeat_timeout=contract.HEARTBEAT_TIMEOUT,
            start_to_close_timeout=contract.longest_run(hard_limit),
            # For dead workers only: a handler's own retries are executions of their own.
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=1), backoff_coefficient=1.5, maximum_attempts=MAX_LOST
            ),
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            priority=Priority(priority_key=contract.temporal_priority(message.get("priority")))
            if message
            else Priority.default,
            summary=str(message.get("task") or order.job.job_name)[:200],
        )

    async def _until_done_or_cancelled(self, handle: ActivityHandle[Any]) -> None:
        """Wait for the execution; when the job is cancelled, write it down and pass it on to the running code."""
        try:
            await workflow.wait_condition(lambda: handle.done() or self._cancel is not None)
        except asyncio.CancelledError:
            self._is_cancelled_natively = True
        if not handle.done():
            assert self._job is not None
            await self._record_cancelled(self._job)
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
        self._lost = MAX_LOST
        why = cause.type.name.lower() if isinstance(cause, ActivityTimeout) and cause.type else str(cause)
        return Outcome(
            kind=OutcomeKind.LOST, error=f"{MAX_LOST} workers fell silent while they ran it ({why})."
        )

    async def _requeue(self, outcome: Outcome) -> None:
        self._step, self._error = "queued", outcome.error
        if outcome.kind is OutcomeKind.RELEASED:
            self._attempt -= 1
            return
        if outcome.kind is OutcomeKind.LOST:
            self._lost += 1
        else:
            self._requeued += 1
        if self._lost >= MAX_LOST:
            # A worker is asked once more, to fail the job without running it: so callbacks, result and row learn.
            self._give_up = f"Worker lost, {MAX_LOST} times: {outcome.error}"
            return
        tries = self._requeued + self._lost
        await self._sleep(min(REQUEUE_DELAY * 2 ** min(tries - 1, 10), MAX_REQUEUE_DELAY))

    # -- the ends

    def _succeed(self, job: JobInput, outcome: Outcome) -> dict[str, Any]:
        self._step, self._progress, self._error = "completed", 100.0, None
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
        await self._record_cancelled(job)
        return self._stop(job, Outcome(kind=OutcomeKind.CANCELLED))

    def _result(
        self, job: JobInput, *, success: bool, error: str | None = None, result: Any = None
    ) -> dict[str, Any]:
        self._completed_at = workflow.now().isoformat()
        return JobResult(
            success=success, job_id=job.job_id, completed_at=self._completed_at, error=error, result=result
        ).to_json()

    def _fail_state(self, error: str) -> None:
        self._step, self._error, self._completed_at = "failed", error, workflow.now().isoformat()

    # -- bookkeeping outside of an execution; its failure does not stop the run

    async def _record_cancelled(self, job: JobInput) -> None:
        request = self._cancel or CancelRequest(reason="The workflow was cancelled.")
        await self._update_status(
            contract.StatusUpdate(
                job_id=job.job_id,
                tenant_id=job.tenant_id,
                status="cancelled",
                reason=request.reason,
                cancelled_by=request.cancelled_by,
            )
        )

    async def _update_status(self, update: contract.StatusUpdate) -> None:
        try:
            await workflow.execute_local_activity(
                contract.UPDATE_JOB_STATUS,
                update.to_json(),
                start_to_close_timeout=timedelta(seconds=20),
                retry_policy=RetryPolicy(
                    initial_interval=timedelta(milliseconds=200),
                    maximum_interval=timedelta(seconds=2),
                    maximum_attempts=5,
                ),
            )
        except ActivityError as error:
            workflow.logger.warning(
                "job.status_not_recorded", extra={"status": update.status, "error": str(error.cause)}
            )

    # -- signals and the query

    @workflow.signal(name=contract.CANCEL_JOB)
    def cancel_job(self, document: Any = None) -> None:
        self._cancel = self._cancel or CancelRequest.from_json(document)

    @workflow.signal(name=contract.UPDATE_PROGRESS, unfinished_policy=HandlerUnfinishedPolicy.ABANDON)
    async def update_progress(self, document: Any = None) -> None:
        update = contract.ProgressUpdate.from_json(document)
        if update is None:
            return
        self._progress, self._message = update.progress, update.message
        if update.is_recorded or self._is_recording_progress:
            return
        self._is_recording_progress = True
        try:
            await self._record_progress()
        finally:
            self._is_recording_progress = False

    async def _record_progress(self) -> None:
        """Write the latest progress; what comes while that is written goes with the next."""
        written: tuple[float, str | None] | None = None
        while self._job is not None and written != (self._progress, self._message):
            written = (self._progress, self._message)
            await self._update_status(
                contract.StatusUpdate(
                    job_id=self._job.job_id,
                    tenant_id=self._job.tenant_id,
                    status="processing",
                    progress=self._progress,
                    reason=self._message,
                )
            )

    @workflow.signal(name=contract.RESUME_JOB)
    def resume_job(self, document: Any = None) -> None:
        with suppress(contract.InvalidJobInput):
            self._resumption = contract.message_of(document) or self._resumption

    @workflow.query(name=contract.GET_JOB_STATE)
    def get_job_state(self) -> dict[str, Any]:
        state = {
            "step": self._step,
            "progress": self._progress,
            "attempt": self._attempt,
            "message": self._message,
            "error": self._error,
            "startedAt": self._started_at,
            "completedAt": self._completed_at,
            "cancelRequested": self._cancel.to_json() if self._cancel else None,
        }
        return {name: value for name, value in state.items() if value is not None}


def _fire() -> Fire | None:
    """Tell which fire it is, if a schedule of ours started this workflow."""
    document = workflow.memo_value(contract.SCHEDULE_MEMO, default=None)
    key = SearchAttributeKey.for_datetime(contract.SCHEDULED_START_TIME)
    fire_at = workflow.info().typed_search_attributes.get(key)
    if document is None or fire_at is None:
        return None
    with suppress(
        KeyError, TypeError, ValueError
    ):  # somebody's own schedule may have another memo of this name
        return Fire.from_json(document, fire_at=fire_at.isoformat())
    return None

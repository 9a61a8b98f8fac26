"""An attempt of an activity that no workflow carries: what its workflow would do is done here.

What is due at once goes on within the attempt. Else Temporal tries such an activity again, after as long as an
attempt says that fails in a way that may be repeated. So a retry for later, a worker that stops and a process that was
lost each fail the attempt; the next one begins with the message that the job's row holds by then. The last heartbeat
tells the next attempt how this one ended: one that does not say so has fallen silent.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from jobbridge.core.light import external_id_of
from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import (
    ACKNOWLEDGED,
    DELIVERY,
    ExecuteOrder,
    JobResult,
    Outcome,
    OutcomeKind,
)
from jobbridge.temporal.workflows.execution import MAX_LOST, max_lost
from jobbridge.temporal.workflows.generic_job import MAX_REQUEUE_DELAY, REQUEUE_DELAY

#: In the last heartbeat of an attempt that ended by itself: which one, and how.
_ENDED, _HOW = "ended", "how"
_LOST, _REQUEUED = "lost", "requeued"
_LONGEST_PAUSE = timedelta(seconds=2)
#: Of what may begin at once. None at all would mean: as the retry policy says.
_AT_ONCE = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class LightAttempt:
    """One of them.

    Attributes:
        external_id: How the job's row calls the activity.
        number: 1-based; of workers that died as well as of retries.
        lost: How many workers or pool processes went with this message.
        requeued: How often it was given back by a worker that lives.
        is_redelivery: An attempt with this message was made before.
        may_have_gone_on: The job's row may have a later message than the activity.
        max_lost: How many may.
        acknowledged: Of the message that began in an attempt before, and must not run twice; None: there is none.
    """

    external_id: str
    run_id: str
    number: int
    lost: int
    requeued: int
    is_redelivery: bool
    may_have_gone_on: bool
    acknowledged: str | None = None
    max_lost: int = MAX_LOST

    @classmethod
    def of(cls, info: activity.Info, document: Any = None) -> LightAttempt | None:
        """Read it; None: the activity is a workflow's.

        Args:
            info: Of the activity.
            document: Its input.
        """
        if info.in_workflow:
            return None
        told = info.heartbeat_details[0] if info.heartbeat_details else {}
        told = told if isinstance(told, dict) else {}
        lost, requeued = int(told.get(_LOST, 0)), int(told.get(_REQUEUED, 0))
        is_redelivery = info.attempt > 1
        if is_redelivery and told.get(_ENDED) != info.attempt - 1:
            has_begun = contract.has_begun(info.heartbeat_details)
            lost, requeued = lost + has_begun, requeued + (not has_begun)
        elif is_redelivery:
            is_redelivery = told.get(_HOW) != OutcomeKind.CONTINUED
        return cls(
            external_id=external_id_of(info.activity_id),
            run_id=info.activity_run_id or "",
            number=info.attempt,
            lost=lost,
            requeued=requeued,
            is_redelivery=is_redelivery,
            may_have_gone_on=info.attempt > 1,
            acknowledged=told.get(DELIVERY)
            if contract.was_acknowledged(info.heartbeat_details, None)
            else None,
            max_lost=max_lost(document.get("message")) if isinstance(document, dict) else MAX_LOST,
        )

    def order(self, document: Any, activity_id: str) -> ExecuteOrder:
        """Read what is to be executed.

        Raises:
            ApplicationError: The activity's input is none that a job can have.
        """
        try:
            order = ExecuteOrder.from_json(document, workflow_id=activity_id)
            why = contract.why_not_carried(document)
        except contract.InvalidJobInput as error:
            why = str(error)
        if why is not None:
            raise ApplicationError(why, type="InvalidJobInput", non_retryable=True)
        return replace(order, is_redelivery=self.is_redelivery, give_up=self.give_up)

    def pause_before_the_next(self, outcome: Outcome) -> timedelta | None:
        """Give how long to wait for the job's next message here; None: that is for another attempt.

        Temporal makes that one a second later at the earliest (server 1.32), whatever it is asked for.
        """
        if outcome.kind is not OutcomeKind.CONTINUED:
            return None
        due = contract.instant_of((outcome.message or {}).get("eta"))
        pause = timedelta() if due is None else max(timedelta(), due - datetime.now(UTC))
        return pause if pause < _LONGEST_PAUSE else None

    def goes_on(self) -> LightAttempt:
        """Begin with the job's next message."""
        further = replace(
            self, lost=0, requeued=0, is_redelivery=False, may_have_gone_on=False, acknowledged=None
        )
        activity.heartbeat(further.told())
        return further

    @property
    def give_up(self) -> str | None:
        """Why the job is to fail without being run again."""
        return f"Worker lost, {self.lost} times." if self.lost >= self.max_lost else None

    @property
    def is_last(self) -> bool:
        """Whether the job fails if this attempt is lost, too."""
        return self.lost >= self.max_lost - 1

    def told(self) -> dict[str, Any]:
        """Give what each heartbeat has to carry on."""
        return {_LOST: self.lost, _REQUEUED: self.requeued}

    def end(self, outcome: Outcome, job_id: str, *, is_cancelled: bool) -> dict[str, Any]:
        """End the attempt, and the activity with it if nothing is left to do; gives the result.

        Args:
            is_cancelled: Temporal was asked to cancel it.

        Raises:
            asyncio.CancelledError: It was cancelled.
            ApplicationError: It goes on with another attempt.
        """
        match outcome.kind:
            case OutcomeKind.COMPLETED | OutcomeKind.HANDED_OVER | OutcomeKind.WAITING:
                # Who waits for its children is sent anew by the last of them.
                return _result(job_id, success=True, result=outcome.result)
            case OutcomeKind.CANCELLED if is_cancelled:
                raise asyncio.CancelledError
            case OutcomeKind.CANCELLED | OutcomeKind.EXPIRED | OutcomeKind.SKIPPED:
                kind, reason = outcome.kind.value, outcome.error
                return _result(job_id, success=False, error=f"{kind}: {reason}" if reason else kind)
            case OutcomeKind.CONTINUED:
                due = contract.instant_of((outcome.message or {}).get("eta"))
                after = timedelta() if due is None else due - datetime.now(UTC)
                raise self._again(outcome, after=after)
            case OutcomeKind.RELEASED:
                raise self._again(outcome, lost=self.lost, requeued=self.requeued)
            case OutcomeKind.LOST | OutcomeKind.REQUEUED:
                is_lost = outcome.kind is OutcomeKind.LOST
                lost, requeued = self.lost + is_lost, self.requeued + (not is_lost)
                pause = min(REQUEUE_DELAY * 2 ** min(lost + requeued - 1, 10), MAX_REQUEUE_DELAY)
                after = timedelta() if lost >= self.max_lost else pause
                raise self._again(outcome, after=after, lost=lost, requeued=requeued)

    def _again(
        self, outcome: Outcome, *, after: timedelta = timedelta(), lost: int = 0, requeued: int = 0
    ) -> ApplicationError:
        """Tell the next attempt how this one ended, and give the error by which Temporal makes it."""
        told = {_ENDED: self.number, _HOW: outcome.kind.value, _LOST: lost, _REQUEUED: requeued}
        if self.acknowledged is not None and outcome.kind is OutcomeKind.REQUEUED:
            # It could not be read what became of that message: the next attempt has to know of it, too.
            told |= {ACKNOWLEDGED: True, DELIVERY: self.acknowledged}
        activity.heartbeat(told)
        return ApplicationError(
            contract.cut(outcome.error or f"The job goes on: {outcome.kind.value}."),
            type=outcome.kind.value,
            next_retry_delay=max(after, _AT_ONCE),
            category=ApplicationErrorCategory.BENIGN,
        )


def _result(job_id: str, *, success: bool, error: str | None = None, result: Any = None) -> dict[str, Any]:
    completed_at = datetime.now(UTC).isoformat()
    document = JobResult(
        success=success, job_id=job_id, completed_at=completed_at, error=error, result=result
    )
    return document.to_json()

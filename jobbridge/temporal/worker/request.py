"""Celery's request, listened to: how an execution ended is noted before Celery acknowledges the message.

Celery tells its broker only "acknowledged" or "rejected". Temporal wants to know more: result, error, retry. So each
task gets, in the worker's parent process, a subclass of its own request class that notes the reason first.

In this process every task acknowledges late, whatever its author chose, because the acknowledgement settles the
activity. What `acks_late=False` promises (a task whose worker died is not run again) is kept by other means: the
activity's heartbeats say that it began, and whoever gets it next fails it.

Source: celery 5.7, worker/request.py and worker/strategy.py.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # not in the stubs
from celery.exceptions import Ignore, Reject, Retry, TimeLimitExceeded, WorkerLostError
from celery.utils.imports import symbol_by_name
from celery.worker.state import task_ready

from jobbridge.app.execute.killed import is_retried, note_stopped
from jobbridge.app.worker.losses import loss_of
from jobbridge.core.shown import text_of
from jobbridge.temporal.worker.execution import Settlement, SettlementKind

if TYPE_CHECKING:
    from jobbridge.temporal.worker.execution import Execution

logger = logging.getLogger(__name__)

_ACKS_EARLY = "jobbridge_acks_early"


def adopt(task: Any) -> None:
    """Make a task of this process settle activities. Again is harmless."""
    if not hasattr(task, _ACKS_EARLY):
        setattr(task, _ACKS_EARLY, not task.acks_late)
        if not task.acks_late:
            task.acks_late = True
            task.reject_on_worker_lost = False  # else Celery would run it again
            task.acks_on_failure = task.acks_on_timeout = True
    base = symbol_by_name(task.Request)
    if not issubclass(base, SettlingRequest):
        task.Request = type(base.__name__, (SettlingRequest, base), {"__module__": base.__module__})


def acks_early(task: Any) -> bool:
    """Whether the task's author chose to acknowledge before the task runs."""
    return bool(getattr(task, _ACKS_EARLY, False))


class SettlingRequest:
    """What is put in front of a task's request class, which may be a user's: names of ours are mangled."""

    _message: Any
    _already_cancelled: bool
    _already_revoked: bool
    __was_retried = False

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)  # type: ignore[call-arg]  # Celery's Request, behind it
        execution = self.__execution
        if execution is not None:
            execution.request = self
            execution.acks_early = acks_early(self._task)  # type: ignore[attr-defined]  # of Celery's Request

    @property
    def __execution(self) -> Execution | None:
        return getattr(self._message, "execution", None)

    def on_accepted(self, pid: int | None, time_accepted: float) -> None:
        execution = self.__execution
        if execution is not None:
            execution.has_begun.set()
        super().on_accepted(pid, time_accepted)  # type: ignore[misc]  # Celery's Request, behind it

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if self.__was_retried:
            return
        if not soft:
            self.__note(failure(TimeLimitExceeded(timeout)))
        try:
            super().on_timeout(soft, timeout)  # type: ignore[misc]  # Celery's Request, behind it
        except Exception:
            self.__settle_anyway()
            raise

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        if is_retried(self, exc_info):
            self.__was_retried = True
            self.__note(Settlement(kind=SettlementKind.RETRIED, error=text_of(exc_info.exception)))
            task_ready(self)
            self.acknowledge()  # type: ignore[attr-defined]  # of Celery's Request
            return None
        self.__note(_settlement_of(exc_info))
        try:
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)  # type: ignore[misc]
        except MemoryError:
            raise  # the worker ends, and Temporal notices
        except Exception:
            self.__settle_anyway()
            raise
        finally:
            # Its process was stopped, or lost.
            if not return_ok or self._already_revoked or self._already_cancelled:
                note_stopped(self._app, self._context)  # type: ignore[attr-defined]  # of Celery's Request
            if self._already_cancelled and self.__execution is not None:
                self.__execution.settle_as_stopped()  # Celery leaves it to the broker's redelivery

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        kind = SettlementKind.EXPIRED if expired else SettlementKind.REVOKED
        self.__note(Settlement(kind=kind, error=reason))
        try:
            super()._announce_revoked(reason, terminated, signum, expired)  # type: ignore[misc]
        except Exception:
            self.__settle_anyway()
            raise

    def _success_was_stored(self) -> Any:
        stored = super()._success_was_stored()  # type: ignore[misc]
        if stored:
            self.__note(Settlement(kind=SettlementKind.SUCCEEDED))
        return stored

    def _retry_worker_lost(self, exc: BaseException, exc_info: Any) -> bool:
        before = self.__execution.note if self.__execution else None
        self.__note(Settlement(kind=SettlementKind.RETRIED, error=text_of(exc)))
        is_sent = bool(super()._retry_worker_lost(exc, exc_info))  # type: ignore[misc]
        if not is_sent and before is not None:
            self.__note(before)
        return is_sent

    def __note(self, settlement: Settlement) -> None:
        if self.__execution is not None:
            self.__execution.note = settlement

    def __settle_anyway(self) -> None:
        execution = self.__execution
        if execution is not None:
            execution.settle(execution.note or Settlement(kind=SettlementKind.LOST))


def _settlement_of(exc_info: Any) -> Settlement:
    error = exc_info.exception
    if isinstance(error, ExceptionWithTraceback):
        error = error.exc
    if isinstance(error, Retry):
        return Settlement(kind=SettlementKind.RETRIED, error=text_of(error.exc or error))
    if isinstance(error, Ignore):
        return Settlement(kind=SettlementKind.IGNORED)
    if isinstance(error, Reject) and getattr(error, "requeue", False):
        return Settlement(kind=SettlementKind.REQUEUED, error=str(getattr(error, "reason", error)))
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return failure(WorkerLostError(loss_of(error)), exc_info.traceback, is_lost=True)
    if isinstance(error, WorkerLostError):
        return failure(error, exc_info.traceback, is_lost=True)
    return failure(error, exc_info.traceback)


def failure(error: BaseException, traceback: str | None = None, *, is_lost: bool = False) -> Settlement:
    """Note a failure; whether a lost process fails the job or has it run again, the acknowledgement says."""
    name = (
        getattr(error, "exc_cls_name", None) or type(error).__name__
    )  # Celery's stand-in for what cannot be pickled
    return Settlement(
        kind=SettlementKind.FAILED,
        error=text_of(error) or name,
        error_type=str(name),
        traceback=None if traceback is None else str(traceback),
        is_lost=is_lost,
    )

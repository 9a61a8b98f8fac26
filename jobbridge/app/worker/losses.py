"""What took a job's process with it: noted by the worker's parent, told should the message become a dead letter of it.

Celery gives such a message back, and says why in its log only (celery 5.7, worker/request.py, `Request.on_failure`).
"""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # not in the stubs
from billiard.exceptions import WorkerLostError
from celery.exceptions import Reject
from celery.utils.imports import symbol_by_name

#: More than a worker has at a time.
_KEPT = 1000


class Losses:
    """By task id, what became of the last run that did not end. Of one worker's parent."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def note(self, task_id: str, reason: str) -> None:
        """Know it; the oldest is forgotten."""
        self._reasons.pop(task_id, None)
        self._reasons[task_id] = reason
        while len(self._reasons) > _KEPT:
            del self._reasons[next(iter(self._reasons))]

    def take(self, task_id: str) -> str | None:
        """Give it, once."""
        return self._reasons.pop(task_id, None)


def loss_of(error: BaseException) -> str | None:
    """Say what happened, if it is nothing that the task's code could answer for by an exception of its own."""
    if isinstance(error, ExceptionWithTraceback):
        error = error.exc
    if isinstance(error, WorkerLostError):
        return str(error) or "its process is gone"
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return f"the task raised {error!r}"
    if isinstance(error, Reject) and getattr(error, "requeue", False):
        return f"the task gave its message back: {getattr(error, 'reason', error)}"
    return None


def adopt(task: Any, losses: Losses) -> None:
    """Have the losses of a task's jobs noted. Again is harmless."""
    base = symbol_by_name(task.Request)
    if not issubclass(base, _NotingRequest):
        members = {"__module__": base.__module__, "losses": losses}
        task.Request = type(base.__name__, (_NotingRequest, base), members)


class _NotingRequest:
    """What is put in front of a task's request class."""

    losses: Losses
    id: str

    def on_failure(self, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        loss = loss_of(exc_info.exception)
        if loss is not None:
            self.losses.note(self.id, loss)
        return super().on_failure(exc_info, *arguments, **options)  # type: ignore[misc]  # Celery's Request, behind it

"""One message inside this worker, from the activity that brought it to the acknowledgement that settles it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from kombu.message import Message

from jobbridge.core.handlers import nearest
from jobbridge.core.keys import JobKey
from jobbridge.errors import UnknownHandler
from jobbridge.temporal.wire.contract import DELIVERY, cut_name

if TYPE_CHECKING:
    from jobbridge.temporal.worker.light import LightAttempt


class SettlementKind(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    IGNORED = "ignored"
    REQUEUED = "requeued"  # the handler rejected it, to be run again
    LOST = "lost"
    RELEASED = "released"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """How an execution ended, as the worker saw it."""

    kind: SettlementKind
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    is_lost: bool = False


@dataclass(kw_only=True, eq=False)
class Execution:
    """A message that this worker holds.

    Attributes:
        request: Celery's request, once its strategy took the message.
        has_begun: The pool accepted it.
        acks_early: Its author wants it never run twice.
        note: What the request said of its end; counts when the message is acknowledged.
        settled: Resolved once, from whatever thread.
        progress: How far the job is, and what it says to that, as its row had it lately.
        light: Its attempt, if no workflow carries it.
        is_suspect: Workers fell silent with it so often that it runs alone now (`isolation`).
        holder: The activity attempt that waits for it; None: nobody does, for now.
    """

    key: JobKey
    task_id: str
    task_name: str
    delivery: str | None
    workflow_id: str
    run_id: str
    message: Any = None
    request: Any = None
    light: LightAttempt | None = None
    acks_early: bool = False
    note: Settlement | None = None
    holder: object | None = None
    is_revoked: bool = False
    is_suspect: bool = False
    progress: tuple[float, str | None] | None = None
    has_begun: threading.Event = field(default_factory=threading.Event)
    settled: Future[Settlement] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def is_with_pool(self) -> bool:
        """Whether the pool has it, so that it may run at any moment."""
        request = self.request
        return self.has_begun.is_set() or (request is not None and request._apply_result is not None)

    def told(self, heartbeat: dict[str, Any]) -> dict[str, Any]:
        """Give a heartbeat with what the next attempt has to know, and how far the job is."""
        own = {**heartbeat, DELIVERY: self.delivery}
        if self.progress is not None:
            progress, message = self.progress
            own |= {"progress": progress, "message": cut_name(message or "")}
        return own if self.light is None else {**own, **self.light.told()}

    def settle(self, settlement: Settlement) -> None:
        """Say how it ended; only the first time counts."""
        with suppress(InvalidStateError):  # another thread was first
            self.settled.set_result(settlement)

    def settle_as_stopped(self) -> None:
        """Say that the worker stopped it: it runs again elsewhere, unless it must not run twice."""
        stopped = "The worker was stopped before the task had ended."
        if self.acks_early:
            self.settle(
                Settlement(
                    kind=SettlementKind.FAILED, error=stopped, error_type="WorkerLostError", is_lost=True
                )
            )
        else:
            self.settle(Settlement(kind=SettlementKind.REQUEUED, error=stopped))


class JobMessage(Message):
    """A kombu message that knows its execution."""

    def __init__(self, *args: Any, execution: Execution, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execution = execution
        execution.message = self


class SettlingChannel:
    """What a message's ack and reject reach instead of a broker."""

    no_ack_consumers = None

    def __init__(self, execution: Execution, *, known_tasks: Any) -> None:
        self._execution = execution
        self._known_tasks = known_tasks

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        execution = self._execution
        if execution.note is None and execution.request is None:
            execution.settle(
                _unreadable(execution)
            )  # Consumer.on_decode_error acknowledges what it cannot read
        else:
            execution.settle(execution.note or Settlement(kind=SettlementKind.SUCCEEDED))

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        execution = self._execution
        note = execution.note
        if requeue:
            kind = SettlementKind.LOST if note is not None and note.is_lost else SettlementKind.REQUEUED
            execution.settle(Settlement(kind=kind, error=note.error if note else None))
        elif note is not None:
            execution.settle(note)
        elif execution.task_name not in self._known_tasks:
            execution.settle(unknown_task(execution, self._known_tasks))
        else:
            execution.settle(_unreadable(execution))

    def bury(self, delivery_tag: str, why: str) -> None:
        """Fail a job whose message no request can be made of."""
        self._execution.settle(
            Settlement(
                kind=SettlementKind.FAILED,
                error=f"The message cannot be read: {why}",
                error_type="UnreadableMessage",
            )
        )


def unknown_task(execution: Execution, known_tasks: Any) -> Settlement:
    """Say that no task has that name here, and which is the nearest."""
    names = [name for name in known_tasks if not name.startswith("celery.")]
    error = UnknownHandler.named(execution.task_name, suggestion=nearest(execution.task_name, names))
    return Settlement(kind=SettlementKind.FAILED, error=f"{error} {error.hint}", error_type="NotRegistered")


def _unreadable(execution: Execution) -> Settlement:
    return Settlement(
        kind=SettlementKind.FAILED,
        error=f"The message of {execution.task_name!r} cannot be read; the worker's log says why.",
        error_type="InvalidTaskError",
    )

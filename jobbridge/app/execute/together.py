"""What follows from an end is in the end's own transaction, and waits as long as the end does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from celery._state import _task_stack  # type: ignore[attr-defined]  # missing in the stubs
from kombu.exceptions import OperationalError

from jobbridge.app.execute import unwritten_ends
from jobbridge.core.events import JobEvent, Recorded
from jobbridge.errors import DatabaseError, DatabaseRefused, DatabaseUnavailable
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.faults import Kind, kind_of

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: How an attempt's end is waited for to be written while Postgres is away: seconds in all, and between two tries.
PATIENCE = 600.0
LONGEST_NAP = 1.0

_Result = TypeVar("_Result")


@dataclass(kw_only=True, slots=True)
class Follows:
    """What follows from an attempt's success; taken from its request, so that Celery's tracer sends nothing."""

    callbacks: Any
    chain: Any

    @classmethod
    def taken_from(cls, request: Any) -> Follows | None:
        if not request.callbacks and not request.chain:
            return None
        follows = cls(callbacks=request.callbacks, chain=request.chain)
        request.callbacks = request.chain = None
        return follows

    def give_back(self, request: Any) -> None:
        request.callbacks, request.chain = self.callbacks, self.chain


@dataclass(kw_only=True, slots=True)
class Together:
    """A transaction in which events are recorded and messages sent.

    Attributes:
        recorded: What was recorded in it, for those who wait for that.
    """

    app: Celery
    connection: DriverConnection
    recorded: list[Recorded] = field(default_factory=list)

    def record(self, event: JobEvent) -> Recorded:
        recorded = self.app.recorder.record(event, self.connection)
        self.recorded.append(recorded)
        return recorded


_current: ContextVar[Together | None] = ContextVar("jobbridge_together", default=None)


def together() -> Together | None:
    """Give the transaction that is open here."""
    return _current.get()


@contextmanager
def in_one_transaction(app: Celery) -> Iterator[Together]:
    """Record and send inside, all or nothing; then those are seen to who waited for it."""
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    with app.database.transaction() as connection, app.enqueue_on(connection):
        opened = Together(app=app, connection=connection)
        token = _current.set(opened)
        try:
            yield opened
        finally:
            _current.reset(token)
    for recorded in opened.recorded:
        app.recorder.attend(recorded)


def patiently(work: Callable[[bool], _Result], **told: Any) -> _Result:
    """Do `work` again and again while Postgres is away, for as long as an end waits.

    Args:
        work: Told whether it was tried before: then it may have been done, and only the answer was lost.
        told: What the log says of it.

    Raises:
        DatabaseUnavailable: It was away for longer.
    """
    deadline = time.monotonic() + PATIENCE
    nap, is_repeated = 0.05, False
    with unwritten_ends.noted():
        while True:
            try:
                return work(is_repeated)
            except Exception as error:
                if not is_away(error) or time.monotonic() > deadline:
                    raise
                logger.warning("job.event_waits", extra={**told, "error": str(error)})
            is_repeated = True
            time.sleep(nap)
            nap = min(nap * 2, LONGEST_NAP)


def is_away(error: BaseException) -> bool:
    """Tell whether an error means that Postgres cannot be had now, so that the same may succeed later."""
    if isinstance(error, DatabaseRefused):
        return False
    if isinstance(error, psycopg.Error):
        return kind_of(error) in (Kind.LOST, Kind.TRANSIENT)
    if isinstance(error, DatabaseError):
        return isinstance(error, DatabaseUnavailable)
    return isinstance(error, OperationalError)


@contextmanager
def outside_of_tasks() -> Iterator[None]:
    """Send messages as if no task ran here: Celery would make that one their parent, and it is there by chance."""
    running = []
    while (task := _task_stack.pop()) is not None:
        running.append(task)
    try:
        yield
    finally:
        for task in reversed(running):
            _task_stack.push(task)

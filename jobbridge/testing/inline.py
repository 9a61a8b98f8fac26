"""Jobs in the test's own thread: real rows and messages, Celery's own request and tracer, and no worker.

A message is taken and run as a worker takes and runs it, by Celery's `Request` over a pool that runs it at once. So
retries, links, chords, results, signals and rows are what they are on the engines. Not so: time limits, `terminate`,
rate limits, and whatever needs two jobs at the same time.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from celery import signals
from celery.concurrency.base import BasePool, apply_target
from celery.utils.imports import symbol_by_name
from kombu.message import Message
from kombu.serialization import prepare_accept_content

from jobbridge.broker import UNCOUNTED
from jobbridge.broker.admin import rehearsal
from jobbridge.testing.kit import Jobs

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: A message that goes back so often would go back for ever.
_MOST_RETURNS = 50


class _AtOnce(BasePool):
    """A pool that runs what it gets before it returns."""

    body_can_be_buffer = True

    def on_apply(self, *args: Any, **options: Any) -> Any:
        for name in ("timeout_callback", "timeout", "soft_timeout", "correlation_id"):
            options.pop(name, None)
        return apply_target(*args, **options)


class InlineJobs(Jobs):
    """Runs jobs when they are sent, or with `drain()`.

    Args:
        app: Bound to the test's database.
        eager: Run what is due as soon as the outermost `delay()` has sent it. False: `drain()` runs it.
    """

    engine: ClassVar[str] = "inline"

    def __init__(self, app: Celery, *, eager: bool = True) -> None:
        super().__init__(app)
        self.eager = eager
        self._pool: Any = _AtOnce(1, app=app)
        self._hostname = f"inline@{socket.gethostname()}"
        self._own = threading.local()
        self._send_task: Any = app.send_task
        self._bulk: Any = app.bulk
        app.send_task = self._send_and_run  # type: ignore[method-assign]  # given back by close()
        app.bulk = self._bulk_and_run  # type: ignore[method-assign]

    def close(self) -> None:
        super().close()
        for name in ("send_task", "bulk"):
            self.app.__dict__.pop(name, None)

    @contextmanager
    def manual(self) -> Iterator[None]:
        """Within the block nothing runs until `drain()`."""
        former, self.eager = self.eager, False
        try:
            yield
        finally:
            self.eager = former

    def _send_and_run(self, *args: Any, **options: Any) -> Any:
        result = self._send_task(*args, **options)
        self._run_if_eager()
        return result

    @contextmanager
    def _bulk_and_run(self, **options: Any) -> Iterator[None]:
        block: AbstractContextManager[None] = self._bulk(**options)
        with block:
            yield
        self._run_if_eager()

    def _run_if_eager(self) -> None:
        is_sent = self.app.open_bulk is None and self.app.caller_connection is None
        if not self.eager or not is_sent:
            return
        if self._is_running:
            self._own.is_wanted_again = True  # on an event loop it may have looked before this was sent
        else:
            self._run_all(deadline=None)

    @property
    def _is_running(self) -> bool:
        return getattr(self._own, "is_running", False)

    def _drain(self, deadline: float) -> None:
        if self._is_running:
            raise RuntimeError("A job cannot drain the queue that it is run from; the test does.")
        self._run_all(deadline)
        super()._drain(time.monotonic())

    def _why(self) -> str:
        return "It went back to its queue, which may be paused; or another process has it."

    def _run_all(self, deadline: float | None) -> None:
        returned: Counter[str] = Counter()
        without: set[int] = set()
        self._own.is_running = True
        try:
            while (row := self._take_or_look_again(without)) is not None:
                if deadline is not None and time.monotonic() > deadline:
                    self._put_back(row)
                    raise AssertionError("Time was up before all had run: does a job send itself for ever?")
                self._run(row, returned, without)
        finally:
            self._own.is_running = False

    def _take_or_look_again(self, without: set[int]) -> dict[str, Any] | None:
        while True:
            self._own.is_wanted_again = False
            row = self._take(without)
            if row is not None or not self._own.is_wanted_again:
                return row

    def _take(self, without: set[int]) -> dict[str, Any] | None:
        with self.app.database.transaction() as connection:
            return rehearsal.take_one(connection, without=without)

    def _put_back(self, row: dict[str, Any]) -> int:
        with self.app.database.transaction() as connection:
            return rehearsal.put_back(connection, row)

    def _run(self, row: dict[str, Any], returned: Counter[str], without: set[int]) -> None:
        message = self._message(row)
        name = message.headers["task"]
        task = self.app.tasks.get(name)
        if task is None:
            self._put_back(row)
            raise AssertionError(
                f"A job of {name!r} was sent, and the app under test has no such task: it would wait."
            )

        def reject(_logger: Any, _errors: Any, requeue: Any = False) -> None:
            if not requeue:
                return
            number = self._put_back(row)
            returned[message.headers["id"]] += 1
            if requeue is UNCOUNTED or returned[message.headers["id"]] >= _MOST_RETURNS:
                without.add(number)

        request = symbol_by_name(task.Request)(
            message, app=self.app, task=task, hostname=self._hostname, on_ack=_acknowledge, on_reject=reject,
            body=message.body, headers=message.headers, decoded=False, utc=True,
        )  # fmt: skip
        if request.expires and request.revoked():
            return
        signals.task_received.send(sender=self, request=request)
        request.execute_using_pool(self._pool)

    def _message(self, row: dict[str, Any]) -> Message:
        told = rehearsal.payload(row)
        return Message(
            body=told["body"],
            delivery_tag=told["properties"]["delivery_tag"],
            content_type=told["content-type"],
            content_encoding=told["content-encoding"],
            delivery_info=told["properties"]["delivery_info"],
            properties=told["properties"],
            headers=told["headers"],
            accept=prepare_accept_content(self.app.conf.accept_content),
        )


def _acknowledge(*_: Any) -> None:
    """It was deleted when it was taken."""

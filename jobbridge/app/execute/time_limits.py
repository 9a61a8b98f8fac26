"""Time limits where tasks run in the worker's own process: in threads, in its main thread (solo), in greenlets.

Celery applies them in pools of processes only; in gevent's, the hard one. Here a limit is an exception that is raised
in the thread: the soft one SoftTimeLimitExceeded, the hard one TimeLimitExceeded. It is raised as soon as the thread
runs Python: what waits in C (a lock, `time.sleep`, a socket) comes back first. A thread cannot be killed, so code that
catches both goes on.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded


@dataclass(kw_only=True, eq=False)
class _Running:
    """A task in a thread, and when to raise what there, the last first."""

    thread: int
    deadlines: list[tuple[float, type[Exception]]] = field(default_factory=list)
    is_over: bool = False


class TimeLimits:
    """Raises the limits of one worker's tasks.

    Args:
        soft: Of tasks that have none of their own, in seconds.
        hard: The same.
        is_green: Tasks are greenlets of gevent. Their hard limits are Celery's.
    """

    def __init__(self, *, soft: float | None, hard: float | None, is_green: bool = False) -> None:
        self._soft = soft
        self._hard = hard
        self._is_green = is_green
        self._changed = threading.Condition()
        self._running: list[_Running] = []
        self._thread: threading.Thread | None = None

    @contextmanager
    def enforced(self, task: Any, request: Any) -> Iterator[None]:
        """Raise the limits of this execution in the block.

        Raises:
            SoftTimeLimitExceeded: It took too long, and has the time to its hard limit to end.
            TimeLimitExceeded: It took longer than that.
        """
        hard, soft = request.timelimit or (None, None)
        hard, soft = hard or task.time_limit or self._hard, soft or task.soft_time_limit or self._soft
        if self._is_green:
            with _green(soft):
                yield
            return
        if soft is None and hard is None:
            yield
            return
        try:
            with self._in_this_thread(soft, hard):
                yield
        except SoftTimeLimitExceeded as error:
            error.args = error.args or (soft,)
            raise
        except TimeLimitExceeded as error:
            error.args = error.args or (hard,)
            raise

    @contextmanager
    def _in_this_thread(self, soft: float | None, hard: float | None) -> Iterator[None]:
        now = time.monotonic()
        running = _Running(thread=threading.get_ident())
        for seconds, kind in ((hard, TimeLimitExceeded), (soft, SoftTimeLimitExceeded)):
            if seconds is not None:
                running.deadlines.append((now + seconds, kind))
        running.deadlines.sort(key=lambda each: each[0], reverse=True)  # a hard limit may be the earlier one
        self._begin(running)
        try:
            yield
        finally:
            self._end(running)

    def _begin(self, running: _Running) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="jobbridge-time-limits", daemon=True)
                self._thread.start()
            self._running.append(running)
            self._changed.notify()

    def _end(self, running: _Running) -> None:
        # What is raised on the way out comes too late, and must not leave the rest undone.
        while not running.is_over:
            try:
                with self._changed:
                    if running in self._running:
                        self._running.remove(running)
                    _raise_in(running.thread, None)
                    running.is_over = True
            except (SoftTimeLimitExceeded, TimeLimitExceeded):
                continue

    def _keep(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for running in self._running:
                    if running.deadlines and running.deadlines[-1][0] <= now:
                        _raise_in(running.thread, running.deadlines.pop()[1])
                nexts = [running.deadlines[-1][0] for running in self._running if running.deadlines]
                self._changed.wait(max(min(nexts) - now, 0.001) if nexts else None)


def _raise_in(thread: int, kind: type[Exception] | None) -> None:
    error = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)


@contextmanager
def _green(soft: float | None) -> Iterator[None]:
    if soft is None:
        yield
        return
    from gevent import Timeout  # type: ignore[import-untyped]  # there is no pool of its without it

    with Timeout(soft, SoftTimeLimitExceeded(soft)):
        yield


@contextmanager
def enforced(task: Any, request: Any) -> Iterator[None]:
    """Raise the limits of this execution in the block, where nobody else does."""
    limits: TimeLimits | None = task.app.time_limits
    if limits is None:
        yield
        return
    with limits.enforced(task, request):
        yield

"""Tasks that are coroutines, on one event loop for each thread that runs tasks: in prefork one for each process.

The loop stays from job to job, and turns while one of them runs; so clients and pools that belong to a loop may be kept
in a module. What a coroutine has begun with `create_task` and left behind is cancelled when it ends.

What ends other tasks by an exception ends these at their `await`, as asyncio cancels: time limits by an exception that
is both a CancelledError and Celery's (SoftTimeLimitExceeded, TimeLimitExceeded), a cancelled job by a CancelledError.
In a pool's process that is told to stop it has `GRACE` to clean up.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from datetime import timedelta
from functools import wraps
from typing import Any, Final, TypeVar

from celery import current_task
from celery.exceptions import Ignore, SoftTimeLimitExceeded, TimeLimitExceeded
from celery.worker import state as worker_state

from jobbridge.postgres import on_loop

Value = TypeVar("Value")

#: A coroutine whose process was told to stop has so long to end; then the process goes.
GRACE: Final = timedelta(seconds=10)
#: Seconds after which a thread that waits on its loop is made to look up: for what others raise in it, and for cancels.
_LOOK_UP: Final = 0.1
_LIMITS = (SoftTimeLimitExceeded, TimeLimitExceeded)


class SoftLimitReached(asyncio.CancelledError, SoftTimeLimitExceeded):
    """What a coroutine sees of its soft time limit."""


class HardLimitReached(asyncio.CancelledError, TimeLimitExceeded):
    """What a coroutine sees of its hard time limit, where its thread cannot be killed."""


class _Loop:
    """A thread's own event loop."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()

    def __del__(self) -> None:
        if self.pid == os.getpid() and not self.loop.is_running():
            self.loop.close()


_own = threading.local()


def _loop() -> asyncio.AbstractEventLoop:
    held: _Loop | None = getattr(_own, "held", None)
    if held is None or held.pid != os.getpid() or held.loop.is_closed():
        held = _own.held = _Loop()
    return held.loop


def is_in_coroutine() -> bool:
    """Whether the calling code is part of a task's coroutine; not if its job runs in place, in somebody else's loop."""
    held: _Loop | None = getattr(_own, "held", None)
    return held is not None and asyncio._get_running_loop() is held.loop


def run(coroutine: Coroutine[Any, Any, Value], task: Any) -> Value:
    """Run a task's coroutine to its end on this thread's loop.

    Args:
        coroutine: Not begun.
        task: Celery's, whose request is the current one.

    Raises:
        SoftTimeLimitExceeded, TimeLimitExceeded: The limit that ended it.
        Ignore: The job was cancelled; its row says so.
    """
    value: Value = _Execution(_loop(), coroutine, task).run()
    return value


class _Execution:
    """One coroutine while it runs."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], task: Any
    ) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._task_id = task.request.id
        #: What ends it, and what it is told.
        self._ended_by: BaseException | None = None
        self._told: BaseException | None = None
        self._is_terminated = False
        self._driven: asyncio.Task[Any] | None = None

    def run(self) -> Any:
        with _instead_of_another_loop(), on_loop.apart(), self._attended():
            before = asyncio.all_tasks(self._loop)
            self._driven = self._loop.create_task(self._drive())
            try:
                return self._outcome()
            finally:
                self._cancel_the_rest(before)

    def _outcome(self) -> Any:
        driven = self._driven
        assert driven is not None
        while not driven.done():
            try:
                self._loop.run_until_complete(driven)
            except _LIMITS as limit:  # raised in this thread, while the loop waited
                if driven.done():
                    break
                self._interrupt(limit)
            except BaseException:
                if not driven.done():  # the process is to end, and not by us
                    raise
        try:
            return driven.result()
        except asyncio.CancelledError as error:
            raise self._reason() from error
        except BaseExceptionGroup as errors:  # of a TaskGroup, which was told by it
            if self._told is None or errors.subgroup(type(self._told)) is None:
                raise
            raise self._reason() from errors

    def _reason(self) -> BaseException:
        if self._ended_by is not None:
            return self._ended_by
        return RuntimeError("The coroutine was cancelled by its own code.")

    async def _drive(self) -> Any:
        return await _Told(self._coroutine, self)

    def _interrupt(self, ended_by: BaseException) -> None:
        """Have the coroutine's `await` raise."""
        match ended_by:
            case SoftTimeLimitExceeded():
                self._told = SoftLimitReached(*ended_by.args)
            case TimeLimitExceeded():
                self._told = HardLimitReached(*ended_by.args)
            case _:
                self._told = asyncio.CancelledError(str(ended_by))
        self._ended_by = ended_by
        if self._driven is not None:
            self._driven.cancel()

    @property
    def told(self) -> BaseException | None:
        """What the coroutine sees instead of being cancelled."""
        return self._told

    @contextlib.contextmanager
    def _attended(self) -> Iterator[None]:
        loop, former = self._loop, self._loop.get_exception_handler()
        loop.set_exception_handler(self._on_exception)
        looking = [loop.call_later(_LOOK_UP, self._look_up)]
        self._looking = looking
        is_main = threading.current_thread() is threading.main_thread()
        former_term = signal.getsignal(signal.SIGTERM) if is_main else None
        stops = is_main and _in_pool_child()
        if stops:
            signal.signal(signal.SIGTERM, lambda *_: self._terminate())
        try:
            yield
        finally:
            if stops:
                signal.signal(signal.SIGTERM, former_term or signal.SIG_DFL)
            looking[0].cancel()
            loop.set_exception_handler(former)
            if self._is_terminated:
                os.kill(os.getpid(), signal.SIGTERM)

    def _look_up(self) -> None:
        self._looking[0] = self._loop.call_later(_LOOK_UP, self._look_up)
        if self._ended_by is None and self._task_id in worker_state.revoked:
            self._interrupt(Ignore("The job was cancelled."))

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, _LIMITS):  # raised in this thread, in a callback of the loop's
            self._interrupt(error)
        else:
            loop.default_exception_handler(context)

    def _terminate(self) -> None:
        """Let the coroutine clean up, and then go the way that SIGTERM leads."""
        if self._is_terminated:
            return
        self._is_terminated = True
        self._loop.call_soon_threadsafe(self._interrupt, Ignore("The job was cancelled."))
        self._loop.call_soon_threadsafe(self._loop.call_later, GRACE.total_seconds(), os._exit, 1)

    def _cancel_the_rest(self, before: set[asyncio.Task[Any]]) -> None:
        rest = asyncio.all_tasks(self._loop) - before
        for each in rest:
            each.cancel()
        if rest and not self._loop.is_closed():
            self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))


class _Told:
    """A coroutine whose CancelledError is exchanged for what it is to be told."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], execution: _Execution) -> None:
        self._coroutine = coroutine
        self._execution = execution

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        try:
            wanted = coroutine.send(None)
            while True:
                try:
                    got = yield wanted
                except asyncio.CancelledError as error:
                    wanted = coroutine.throw(self._execution.told or error)
                except BaseException as error:
                    wanted = coroutine.throw(error)
                else:
                    wanted = coroutine.send(got)
        except StopIteration as done:
            return done.value
        finally:
            coroutine.close()


@contextlib.contextmanager
def _instead_of_another_loop() -> Iterator[None]:
    """Have this thread's loop run although the caller is on one: a test that is a coroutine, with its jobs inline."""
    outer = asyncio._get_running_loop()
    if outer is None:
        yield
        return
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)


def _in_pool_child() -> bool:
    from billiard.process import current_process

    return getattr(current_process(), "index", None) is not None


def synchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give what a task runs for a coroutine function; another function as it is.

    Called by other code, it gives the coroutine.
    """
    if not inspect.iscoroutinefunction(function):
        return function
    former: Callable[..., Any] | None = getattr(function, _FORM, None)
    if former is not None:  # Celery takes another one under the same name for another task
        return former

    @wraps(function)
    def run_to_its_end(*args: Any, **kwargs: Any) -> Any:
        coroutine = function(*args, **kwargs)
        task: Any = current_task
        if not task or task.request.called_directly:
            return coroutine
        return run(coroutine, task)

    run_to_its_end.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # Celery reads it
    with contextlib.suppress(AttributeError):  # a method: its task is registered once
        setattr(function, _FORM, run_to_its_end)
    return run_to_its_end


_FORM = "jobbridge_synchronous"

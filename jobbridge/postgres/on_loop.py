"""Statements of synchronous code that wait on an event loop, and block nobody.

psycopg's connections do all their waiting by one method, `wait`, which is given a generator that yields what it waits
for. Synchronous code that runs in a greenlet of its own (`run`) may therefore be left at that point, while its loop
turns, and be gone on with when the socket is ready. So there is one way to publish and to ask, for both kinds of
callers, as with SQLAlchemy's asyncio extension, which does the same.

What belongs to a loop (connections, who listens there) is kept with it (`of_loop`), and closed when the loop is shut
down as `asyncio.run` does it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from jobbridge.errors import ConfigurationError, UnsupportedOption

_Base: Any = object
with suppress(ImportError):  # told where somebody needs it
    _Base = import_module("greenlet").greenlet

P = ParamSpec("P")
Value = TypeVar("Value")

#: So many calls of one loop are under way at a time; the others wait. Each has a connection while it has a statement.
MOST: Final = 10


class Closable(Protocol):
    """What is kept with a loop."""

    def close(self) -> None:
        """Let go of everything; the loop still runs."""
        ...


class _OnLoop(_Base):  # type: ignore[misc]  # greenlet has no types
    """A greenlet in which synchronous code runs, on behalf of a coroutine."""

    #: SQLAlchemy's asyncio extension waits in it, too: also a caller's AsyncSession is asked here.
    __sqlalchemy_greenlet_provider__ = True

    def __init__(self, function: Callable[..., Any], driver: Any) -> None:
        super().__init__(function, driver)
        self.gr_context = driver.gr_context
        #: Who has lent it a connection; a second one within is given at once.
        self.holds: set[int] = set()
        #: It runs a loop of its own just now, so the one that it stands on cannot turn.
        self.is_apart = False


def _getcurrent() -> Any:
    return _Base.getcurrent()


#: False until somebody uses it: then nothing is asked for on the way of each statement.
_is_used = False


def current() -> Any:
    """Give the greenlet that stands for a coroutine, if this code runs in one."""
    if not _is_used:
        return None
    here = _getcurrent()
    return here if isinstance(here, _OnLoop) and not here.is_apart else None


@contextmanager
def apart() -> Iterator[None]:
    """Let code inside run another loop: its own statements block, and do not wait on the loop around it."""
    here = current()
    if here is None:
        yield
        return
    here.is_apart = True
    try:
        yield
    finally:
        here.is_apart = False


def require() -> None:
    """Make sure that this code may wait on a loop.

    Raises:
        UnsupportedOption: It was called outside of `run`.
    """
    if current() is None:
        raise UnsupportedOption(
            "The caller's connection belongs to an event loop, and `delay()` would block it.",
            hint="Write `await task.adelay(...)`, or `await app.arun(function)` for more than that.",
        )


def wait(awaitable: Awaitable[Value]) -> Value:
    """Wait, in code that `run` runs, as a coroutine does with `await`."""
    here = current()
    assert here is not None
    value: Value = here.parent.switch(awaitable)
    return value


async def run(function: Callable[P, Value], *args: P.args, **kwargs: P.kwargs) -> Value:
    """Run synchronous code whose statements do not block the running loop.

    Args:
        function: It may publish and ask; whatever else it waits for blocks the loop.
        args, kwargs: Of the function.

    Raises:
        ConfigurationError: greenlet is not installed.
        asyncio.CancelledError: The statement that was under way is given up with its connection: whether it was done
            is unknown, as when a connection is lost.
    """
    global _is_used
    if _Base is object:
        raise ConfigurationError(
            "Sending and waiting from asyncio needs the package greenlet.", hint="Run `pip install greenlet`."
        )
    _is_used = True
    async with (await _state()).turns:
        here = _OnLoop(function, _getcurrent())
        told = here.switch(*args, **kwargs)
        while not here.dead:
            try:
                value = await told
            except BaseException:
                told = here.throw(*sys.exc_info())
            else:
                told = here.switch(value)
        result: Value = told
        return result


class _State:
    """What is kept with one loop."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(MOST)
        self.kept: dict[object, Closable] = {}
        self.ending: AsyncGenerator[None, None] | None = None
        self.is_over = False

    def close(self) -> None:
        self.is_over = True
        while self.kept:
            self.kept.popitem()[1].close()


_states: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _State] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


async def _state() -> _State:
    loop = asyncio.get_running_loop()
    state = _states.get(loop)
    if state is None:
        state = _State()
        with _lock:
            _states[loop] = state
        state.ending = _until_the_end(state)
        await anext(state.ending)
    return state


async def _until_the_end(state: _State) -> AsyncGenerator[None, None]:
    # A loop closes the generators that it has begun when it is shut down, and tells nobody else.
    try:
        yield
    finally:
        state.close()


Kept = TypeVar("Kept", bound=Closable)


def of_loop(key: object, make: Callable[[], Kept]) -> Kept:
    """Give what the running loop keeps under a key; made when it is asked for the first time. In `run` only."""
    kept = _states[asyncio.get_running_loop()].kept
    found: Any = kept.get(key)
    if found is None:
        found = kept[key] = make()
    return found  # type: ignore[no-any-return]  # it was made so


async def kept_by_loop(key: object, make: Callable[[], Kept]) -> Kept:
    """The same for coroutines."""
    await _state()
    return of_loop(key, make)


def sleep(seconds: float) -> None:
    """Sleep, on the loop if this code runs in `run`."""
    if current() is None:
        time.sleep(seconds)
    else:
        wait(asyncio.sleep(seconds))


def result_of(future: Any) -> Any:
    """Wait for a future of another thread's, on the loop if this code runs in `run`."""
    if current() is None:
        return future.result()
    return wait(asyncio.wrap_future(future))


def is_over() -> bool:
    """Whether the running loop is being shut down: what is opened for it now would be closed by nobody."""
    state = _states.get(asyncio.get_running_loop())
    return state is not None and state.is_over


def forget(key: object) -> None:
    """Close what loops of this process keep under a key, and drop it."""
    with _lock:
        states = list(_states.values())
    for state in states:
        found = state.kept.pop(key, None)
        if found is not None:
            found.close()

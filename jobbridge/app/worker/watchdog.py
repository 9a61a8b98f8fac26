"""Whether the loops that do a worker's work turn; and what is done when they do not.

The presence's thread asks each loop for an answer, again and again. A loop that owes one for too long hangs, and a main
thread that has ended while its process lives is dead: then the process ends, so that its messages go to others.
Seen once in some 250 reconnects (Celery's result pipe out of step): six messages were held for ever, SIGTERM without
effect.

What is no hang: a worker that (re)connects, for Celery blocks there as long as its broker is away; the solo pool
running a task; a warm shutdown whose tasks run; a network that is away, for then nobody here can tell.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from celery.bootsteps import CLOSE, RUN, TERMINATE  # type: ignore[attr-defined]  # not in the stubs
from celery.worker import state as worker_state

logger = logging.getLogger(__name__)

#: Between two questions to a loop, in seconds. One may be lost, when Celery makes its loop anew.
ASK_EVERY = 5.0
#: What cannot be logged or noted in this time is not: the lock that it takes may be what hangs. Seconds.
LAST_WORDS = 10.0
#: EX_SOFTWARE of sysexits.h.
EXIT_CODE = 70


class Watchdog:
    """Watches one worker. `watch`, `unwatch` and `tick` may be called by any thread, the rest by the presence's.

    Args:
        stuck_after: A loop that does not turn for so long hangs.
    """

    def __init__(self, stuck_after: timedelta) -> None:
        self._stuck_after = stuck_after
        self._worker: Any = None
        self._loops: dict[str, Callable[[Callable[[], None]], object]] = {}
        #: Since when each owes an answer.
        self._owing: dict[str, float] = {}
        self._asked_at = 0.0
        self._done: tuple[int, ...] = ()
        self._is_embedded = False

    def begin(self, worker: Any) -> None:
        """Watch Celery's own loop from now on; to be called on its thread."""
        self._is_embedded = threading.current_thread() is not threading.main_thread()
        self._worker = worker
        self.watch("main", lambda answer: worker.consumer.call_soon(answer))

    def watch(self, name: str, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """Watch one more loop; `call_soon` has it call something, and may be called by any thread."""
        self._loops[name] = call_soon

    def unwatch(self, name: str) -> None:
        """Ask this loop no more: it comes to its end."""
        self._loops.pop(name, None)
        self.tick(name)

    def tick(self, name: str = "main") -> None:
        """Note that this loop turns, or has a reason not to."""
        self._owing.pop(name, None)

    def trouble(self, *, at_most: timedelta) -> str | None:
        """Ask the loops, and tell why this worker is stuck; None: it is not.

        Args:
            at_most: How long Postgres has been in reach: no silence counts for longer.
        """
        if self._worker is None or self._is_embedded:
            return None  # somebody else's process is not ours to end
        if not threading.main_thread().is_alive():
            return "its main thread has ended"
        self._ask()
        if self._is_excused():
            self.tick()
        now = time.monotonic()
        for name, since in list(self._owing.items()):
            silent = min(timedelta(seconds=now - since), at_most)
            if silent > self._stuck_after:
                return f"its {name} loop has not turned for {silent.total_seconds():.0f} s"
        return None

    def is_stopping(self) -> bool:
        """Whether Celery has begun to take the worker down, whoever asked for it."""
        blueprint = getattr(self._worker, "blueprint", None)
        return blueprint is not None and blueprint.state in (CLOSE, TERMINATE)

    def runs_something(self) -> bool:
        """Whether a task is being run that is not known to have lost its process."""
        return bool(running())

    def _ask(self) -> None:
        now = time.monotonic()
        if now - self._asked_at < min(ASK_EVERY, self._stuck_after.total_seconds() / 3):
            return
        self._asked_at = now
        for name, call_soon in list(self._loops.items()):
            self._owing.setdefault(name, now)
            # A loop that is being made or taken down has nobody to ask; that it does not answer is what counts.
            with suppress(AttributeError, RuntimeError, OSError):
                call_soon(lambda name=name: self.tick(name))  # type: ignore[misc]  # mypy: lambda's default

    def _is_excused(self) -> bool:
        worker = self._worker
        state, consumer = worker.blueprint.state, getattr(worker, "consumer", None)
        if state == RUN:
            is_connecting = consumer is None or consumer.connection is None
            is_solo = type(worker.pool).__module__ == "celery.concurrency.solo"
            return is_connecting or (is_solo and self.runs_something())
        if state in (CLOSE, TERMINATE):
            # The loop is over; Celery waits for its pool.
            return self.runs_something() or self._has_moved()
        return True  # it starts

    def _has_moved(self) -> bool:
        before = self._done
        self._done = (
            sum(worker_state.total_count.values()),
            len(worker_state.active_requests),
            len(worker_state.reserved_requests),
        )
        return self._done != before

    def unread(self) -> set[int]:
        """Give the pool's processes whose words wait to be read, because the loop does something else."""
        processes = getattr(getattr(getattr(self._worker, "pool", None), "_pool", None), "_pool", None) or ()
        poll, pids = select.poll(), {}
        for process in list(processes):
            # A thread has none; one that was closed has no number.
            if isinstance(fd := getattr(process, "outqR_fd", None), int):
                poll.register(fd, select.POLLIN)
                pids[fd] = process.pid
        return {pids[fd] for fd, event in poll.poll(0) if event & select.POLLIN}

    # -- the end

    def end_process(self, reason: str, note: Callable[[], None]) -> None:
        """Say why, with the stacks of all threads; then end the pool's processes and this one.

        Args:
            reason: What is wrong.
            note: Writes it down where others find it.
        """
        words = threading.Thread(target=_say, args=(reason, note), name="jobbridge-last-words", daemon=True)
        words.start()
        words.join(timeout=LAST_WORDS)
        for process in getattr(getattr(self._worker.pool, "_pool", None), "_pool", None) or ():
            with suppress(AttributeError, TypeError, ProcessLookupError):  # a thread, or gone already
                os.kill(process.pid, signal.SIGKILL)
        os._exit(EXIT_CODE)


def _say(reason: str, note: Callable[[], None]) -> None:
    # Not by the log alone: a handler may be what hangs.
    faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
    note()
    logger.critical("worker.stuck: %s. It ends itself; its messages go to others.", reason)


def running() -> list[Any]:
    """Give the requests of tasks that are being run, and are not known to have lost their processes."""
    return [request for request in list(worker_state.active_requests) if _has_process(request)]


def _has_process(request: Any) -> bool:
    pid = getattr(request, "worker_pid", None)
    if not pid or pid == os.getpid():
        return True  # a thread runs it, or nobody has said yet which process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; or the number of a greenlet
        return True
    return True

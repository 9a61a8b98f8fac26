"""A worker that was told to stop ends, whatever a socket does.

A warm shutdown waits for what runs. After that come last words to Postgres: acknowledgements, ends, the worker's row.
Each waits with patience of its own, which adds up to minutes when the server is silent, and whoever has sent SIGTERM
sends SIGKILL after half of one. So when nothing runs any more, there is a limit to all of them together; what was not
written then is not acknowledged, and runs again elsewhere.

A cold shutdown (SIGQUIT, or Ctrl-C twice) ends what runs, and so is over within the limit whatever runs. Celery's own
handler of the signal speaks with the broker, and says only after that to everybody else that it was told to stop; so
it is noted here when the signal comes.

The limit has a thread of its own: the presence's waits for the same server.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.platforms import EX_FAILURE
from celery.worker import state as worker_state

from jobbridge.app.worker import native
from jobbridge.app.worker.watchdog import Watchdog, running

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.execute.unwritten_ends import UnwrittenEnds

#: Between two looks. Seconds.
CHECK = 0.5
#: By which a worker is told to stop; which of them is cold is for Celery to decide (`REMAP_SIGTERM`).
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
#: What Celery calls its handler of a cold shutdown (celery 5.7, apps/worker.py, `_shutdown_handler`).
_COLD = "worker_Cold"


class StopLimit:
    """Ends the process of a worker that was told to stop, if it does not end by itself.

    Args:
        app: The worker's. Its settings: `jobbridge_worker_stop_within`, from when it was told and nothing ran any more;
            and `worker_soft_shutdown_timeout`: if there is one, it takes so long and the other at most, whatever runs.
        watchdog: Ends the process.
        unwritten: What of it waits for Postgres only.
    """

    def __init__(self, app: Celery, watchdog: Watchdog, unwritten: UnwrittenEnds) -> None:
        self._app = app
        self._watchdog = watchdog
        self._unwritten = unwritten
        self._within = float(app.conf.jobbridge_worker_stop_within)
        self._soft = float(app.conf.worker_soft_shutdown_timeout or 0)
        self._is_over = self._was_told = False
        self._told_at: float | None = None
        self._cold_at: float | None = None
        self._ran_at = 0.0

    def begin(self) -> None:
        """Look from now on; to be called on the thread of the worker's loop."""
        if threading.current_thread() is not threading.main_thread():
            return  # somebody else's process is not ours to end
        self.listen()
        native.start_thread(self._keep, "jobbridge-stop-limit")

    def end(self) -> None:
        """Look no more: the worker has ended, and its process may go on with something else."""
        self._is_over = True

    def listen(self) -> None:
        """Be called before Celery's handlers of signals are; some of them put others in their place."""
        for number in _SIGNALS:
            handler: Any = signal.getsignal(number)
            if callable(handler) and not isinstance(handler, _Noting):
                signal.signal(number, _Noting(self, handler))

    def note(self, *, is_cold: bool) -> None:
        """Note that the worker is being told to stop."""
        self._was_told = True
        if is_cold and self._cold_at is None:
            self._cold_at = time.monotonic()

    def _keep(self) -> None:
        while (reason := self.trouble(time.monotonic())) is None:
            native.sleep(CHECK)
            if self._is_over:
                return
        self._watchdog.end_process(reason, lambda: None)

    def trouble(self, now: float) -> str | None:
        """Tell why the worker has to be ended now; None: it has not."""
        if not (self._was_told or is_told_to_stop() or self._watchdog.is_stopping()):
            return None
        self._told_at = now if self._told_at is None else self._told_at
        if self._runs_something():
            self._ran_at = now
        if self._soft and now - self._told_at > self._soft + self._within:
            return f"it was told to stop {now - self._told_at:.0f} s ago, more than the soft shutdown allows"
        if self._cold_at is not None and now - self._cold_at > self._soft + self._within:
            return f"it was told {now - self._cold_at:.0f} s ago to stop at once, and has not ended"
        idle = now - max(self._told_at, self._ran_at)
        if idle > self._within:
            return f"it was told to stop, has had nothing to run for {idle:.0f} s, and has not ended"
        return None

    def _runs_something(self) -> bool:
        """Whether a task's code runs: not if all that is left of it is to be written down."""
        settler = self._app.settler
        ended = settler.ended() if settler is not None else ()
        # One that has begun tells next how it ended; the loop may wait for the same server, and not hear it.
        waiting = self._unwritten.processes() | self._watchdog.unread()
        left = [each for each in running() if each not in ended and each.worker_pid not in waiting]
        return len(left) > self._unwritten.threads()


class _Noting:
    """A handler of a signal that notes it before the worker's own handler runs."""

    def __init__(self, limit: StopLimit, handler: Callable[..., Any]) -> None:
        self._limit = limit
        self._handler = handler

    def __call__(self, *arguments: Any) -> Any:
        is_cold = getattr(self._handler, "__name__", "") == _COLD
        self._limit.note(is_cold=is_cold)
        try:
            return self._handler(*arguments)
        except NotImplementedError:
            # The pool cannot stop a task. A solo one runs it on this very thread: the task would be told to have failed
            # by that. Celery says that the worker is to end only when this has returned.
            if is_cold:
                worker_state.should_terminate = EX_FAILURE  # type: ignore[assignment]  # the stubs know None alone
            return None
        finally:
            self._limit.listen()


def is_told_to_stop() -> bool:
    """Whether a signal has asked for the worker's end."""
    told: tuple[Any, ...] = (worker_state.should_stop, worker_state.should_terminate)
    return any(each is not None and each is not False for each in told)

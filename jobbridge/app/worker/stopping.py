"""A worker that was told to stop ends, whatever a socket does.

A warm shutdown waits for what runs. After that come last words to Postgres: acknowledgements, ends, the worker's row.
Each waits with patience of its own, which adds up to minutes when the server is silent, and whoever has sent SIGTERM
sends SIGKILL after half of one. So when nothing runs any more, there is a limit to all of them together; what was not
written then is not acknowledged, and runs again elsewhere.

The limit has a thread of its own: the presence's waits for the same server.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from celery.worker import state as worker_state

from jobbridge.app.worker.watchdog import Watchdog, running

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.execute.unwritten_ends import UnwrittenEnds

#: Between two looks. Seconds.
CHECK = 0.5


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
        self._is_over = threading.Event()
        self._told_at: float | None = None
        self._ran_at = 0.0

    def begin(self) -> None:
        """Look from now on; to be called on the thread of the worker's loop."""
        if threading.current_thread() is not threading.main_thread():
            return  # somebody else's process is not ours to end
        threading.Thread(target=self._keep, name="jobbridge-stop-limit", daemon=True).start()

    def end(self) -> None:
        """Look no more: the worker has ended, and its process may go on with something else."""
        self._is_over.set()

    def _keep(self) -> None:
        while (reason := self.trouble(time.monotonic())) is None:
            if self._is_over.wait(CHECK):
                return
        self._watchdog.end_process(reason, lambda: None)

    def trouble(self, now: float) -> str | None:
        """Tell why the worker has to be ended now; None: it has not."""
        if not is_told_to_stop():
            return None
        self._told_at = now if self._told_at is None else self._told_at
        if self._runs_something():
            self._ran_at = now
        if self._soft and now - self._told_at > self._soft + self._within:
            return f"it was told to stop {now - self._told_at:.0f} s ago, more than the soft shutdown allows"
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


def is_told_to_stop() -> bool:
    """Whether a signal, or remote control, has asked for the worker's end."""
    told: tuple[Any, ...] = (worker_state.should_stop, worker_state.should_terminate)
    return any(each is not None and each is not False for each in told)

"""That a worker is there, what it can run, and that its loops turn (decision 0015).

What if it dies between two steps? Before the row: nobody knows of it, and its number is on no job. After it: the lock
is free and its process is gone, which a sweeper and the reaper see; they free what carries the number, and take the
rows away. When it ends well, it takes them away itself.

What if Postgres goes away? The lock is lost, and taken again within two seconds of Postgres's return, under the same
number; until a minute after that nobody counts as dead whose process cannot be seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from jobbridge import __version__
from jobbridge.app.execute import unwritten_ends
from jobbridge.app.execute.claim import in_pool_child
from jobbridge.app.worker.paused_queues import QueuePausing
from jobbridge.app.worker.stopping import StopLimit
from jobbridge.app.worker.watchdog import Watchdog
from jobbridge.broker import leave
from jobbridge.broker.errors import SessionLost
from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseError
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.connect import close, connect, is_there
from jobbridge.postgres.faults import Kind, kind_of
from jobbridge.postgres.presence import LIMIT, MARGIN, Proof
from jobbridge.store.schema_range import THIS_RELEASE
from jobbridge.store.workers.queue_pauses import LISTEN
from jobbridge.store.workers.workers import NOTE_STUCK, REGISTER, UNREGISTER

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: How often it proves itself, writes its row again (the queues may have changed by remote control), and looks which
#: queues are paused, if it hears of no change. Seconds.
REFRESH = 60.0
#: How often a Temporal worker looks which queues are paused. On CE whoever gives a message of a paused queue back tells
#: it; on EE what came is begun, so that a notification that was lost would not be noticed. Seconds.
LOOK = 10.0
#: How often it looks whether its session is there still, and tries to get another one. Seconds.
CHECK = 1.0
#: Whoever needs the proof waits so long for its session, which may be waiting for an answer. Seconds.
PATIENCE = 10.0

_PR_SET_PDEATHSIG = 1


class Presence:
    """One worker's proof, and its row. Belongs to the worker's parent process.

    Args:
        app: The worker's app.
        name: Celery's node name.
        engine: Which messages it takes.

    Attributes:
        proof: With the number, which is known before the pool forks.
        pausing: What it hears of paused queues.
        watchdog: Of the worker's loops.
    """

    def __init__(self, app: Celery, *, name: str, engine: Engine) -> None:
        self.proof = Proof()
        self.pausing = QueuePausing()
        self.watchdog = Watchdog(timedelta(seconds=float(app.conf.jobbridge_worker_stuck_after)))
        self._unwritten = unwritten_ends.begin()
        self._stop_limit = StopLimit(app, self.watchdog, self._unwritten)
        self._app = app
        #: It stays where it began: an app under test is led elsewhere, perhaps before its worker has ended.
        self._target = app.database.target
        self._name = name
        self._engine = engine
        self._connection: DriverConnection | None = None
        self._lock = threading.RLock()
        self._refreshed_at = self._looked_at = 0.0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: str | None = None

    @property
    def number(self) -> int:
        return self.proof.number

    def open(self) -> bool:
        """Hold the proof and write the row; False when that cannot be now (`watch` will go on trying)."""
        with self._lock:
            if self._stopped.is_set():
                return False
            try:
                self._connection = self._connection or connect(
                    self._target,
                    "presence",
                    keeps_session=True,
                    must_write=True,
                    lasts_in_children=True,
                )
                if not self.proof.hold(self._connection):
                    return False  # the server has not given up the session before this one
                self._connection.execute(LISTEN)
                self._refresh(self._connection)
            except (psycopg.Error, DatabaseError) as error:
                logger.warning("worker.not_registered", extra={"worker": self._name, "error": str(error)})
                self._drop()
                return False
            return True

    def held_number(self) -> int | None:
        """Give the number under which this process holds leases, while it proves that it is here; None in its children.

        Raises:
            SessionLost: It cannot prove it now.
        """
        if self.proof.pid != os.getpid():
            return None
        if not self._lock.acquire(timeout=PATIENCE):
            raise SessionLost("The session that proves this worker's presence does not answer.")
        try:
            if not self.proof.is_held and not self.open():
                raise SessionLost("The session that proves this worker's presence is lost.")
        finally:
            self._lock.release()
        return self.number

    def watch(self, worker: Any) -> None:
        """Keep it up from now on, on a thread; to be called when the pool has forked, by the thread of the loop."""
        if self._thread is None:
            self.watchdog.begin(worker)
            self._stop_limit.begin()
            self._thread = threading.Thread(target=self._keep, name="jobbridge-presence", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Take the rows away, and let go, for good. Does nothing in a forked child, nor a second time."""
        if self.proof.pid != os.getpid():
            return
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(psycopg.Error):  # whoever sweeps sees that its process is gone
                    self._connection.execute(UNREGISTER, {"numbers": [self.number]})
                    leave(self._connection, self.number)
            self._drop()
        self._stop_limit.end()

    # -- on its thread

    def _keep(self) -> None:
        while not self._stopped.wait(CHECK):
            try:
                self._see_to_loops()
                with self._lock:
                    self._see_to_session()
                self._trouble = None
            except (
                Exception
            ) as error:  # whatever it is: a worker whose thread has ended counts as dead, and runs jobs
                if repr(error) != self._trouble:
                    logger.exception("worker.presence_failed", extra={"worker": self._name})
                self._trouble = repr(error)

    def _see_to_loops(self) -> None:
        reason = self.watchdog.trouble(at_most=self.proof.held_for)
        if self.proof.unproven_for > LIMIT - MARGIN and self.watchdog.runs_something():
            reason = f"it could not prove itself for {self.proof.unproven_for}, and soon others may run what it runs"
        if reason is not None:
            self.watchdog.end_process(reason, lambda: self._note_stuck(reason))

    def _see_to_session(self) -> None:
        if self._stopped.is_set():  # while it waited for the lock
            return
        if self._connection is None or not self.proof.is_held:
            self.open()
            return
        now = time.monotonic()
        is_quiet = now - self._refreshed_at < REFRESH and is_there(self._connection) and not self._was_told()
        if is_quiet and (self._engine is Engine.CELERY or now - self._looked_at < LOOK):
            return
        try:
            if is_quiet:
                self._look(self._connection)
            else:
                self._refresh(self._connection)
        except psycopg.Error as error:
            if kind_of(error, self._connection) is Kind.TRANSIENT:
                # Cancelled, or read-only for a while: the session holds the proof still, and is asked again.
                logger.warning("worker.not_renewed", extra={"worker": self._name, "error": str(error)})
                self._refreshed_at = 0.0
                return
            logger.warning("worker.session_lost", extra={"worker": self._name, "error": str(error)})
            self._drop()
            self.open()

    def _was_told(self) -> bool:
        """Whether a queue was paused or resumed, by what was read."""
        assert self._connection is not None
        was_told = False
        while self._connection.pgconn.notifies() is not None:
            was_told = True
        return was_told

    def _look(self, connection: DriverConnection) -> None:
        self.pausing.look(connection)
        self._looked_at = time.monotonic()

    def _refresh(self, connection: DriverConnection) -> None:
        self._look(connection)  # first: the row may be none that these tables can hold
        connection.execute(
            REGISTER,
            self.proof.parameters
            | {
                "name": self._name,
                "engine": self._engine.value,
                "queues": sorted(self._app.amqp.queues.consume_from),
                "sends_to": self._app.default_engine.value,
                "tasks": sorted(name for name in list(self._app.tasks) if not name.startswith("celery.")),
                "release": __version__,
                "knows": THIS_RELEASE.newest,
            },
        )
        self.proof.renewed()
        self._refreshed_at = time.monotonic()

    def _note_stuck(self, reason: str) -> None:
        """Write down why it ends itself, for `jobbridge doctor`, if the session is there."""
        with contextlib.suppress(psycopg.Error):  # the log has it, too
            if self._connection is not None:
                host = socket.gethostname()
                named = {"number": self.number, "name": self._name, "host": host, "pid": self.proof.pid}
                self._connection.execute(NOTE_STUCK, named | {"reason": reason})

    def _drop(self) -> None:
        self._refreshed_at = 0.0
        self.proof.lost()
        if self._connection is not None:
            close(self._connection)
            self._connection = None


def die_with_parent(**_: Any) -> None:
    """Have the kernel end this pool child when its worker is killed.

    What the worker held is given to another one within seconds; an orphan that went on would run it a second time.
    Linux only; elsewhere Celery's pool child ends with its task, and until then its worker does not count as dead.
    """
    # The solo pool sends the signal, too, in the worker itself.
    if sys.platform != "linux" or not in_pool_child():
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

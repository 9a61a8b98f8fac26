"""That a worker is there, and what it can run.

What if it dies between two steps? Before the row: nobody knows of it, and its number is on no job. After it: the lock
is free, and the reaper looks after the jobs that carry the number, then takes the row away. When it ends well, it
takes the row away itself.

What if Postgres goes away? The lock is lost, and taken again within a second of Postgres's return, under the same
number; until half a minute after a restart nobody counts as dead.
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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg

from jobbridge.app.execute.claim import in_pool_child
from jobbridge.app.worker.paused_queues import QueuePausing
from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseError
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.locks import close_held, open_held
from jobbridge.store.workers.queue_pauses import LISTEN
from jobbridge.store.workers.workers import LOCK, LOCK_BASE, REGISTER, UNREGISTER, draw_number

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: How often the row is written again: the queues may have changed by remote control. Seconds.
REFRESH = 30.0
#: How often it looks whether its session is there still, and tries to get another one. Seconds.
CHECK = 1.0
#: How often it looks which queues are paused, if it hears of no change. Seconds.
LOOK = 5.0

_PR_SET_PDEATHSIG = 1


class Presence:
    """One worker's row, and the lock on its number. Belongs to the worker's parent process.

    Args:
        app: The worker's app.
        name: Celery's node name.
        engine: Which messages it takes.

    Attributes:
        number: Drawn at once, so that it is known before the pool forks.
        pausing: What it hears of paused queues.
    """

    def __init__(self, app: Celery, *, name: str, engine: Engine) -> None:
        self.number = draw_number()
        self.pausing = QueuePausing()
        self._app = app
        self._name = name
        self._engine = engine
        self._pid = os.getpid()
        self._connection: DriverConnection | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> bool:
        """Write the row and take the lock; False when that cannot be now (`watch` will go on trying)."""
        try:
            self._connection = self._connection or open_held(
                self._app.database, name="presence", lasts_in_children=True
            )
            params = {"base": LOCK_BASE, "number": self.number}
            row = self._connection.execute(LOCK, params).fetchone()
            if row is None or not row[0]:
                return False  # the server has not given up the session before this one: it speaks for us
            self._write(self._connection)
            self._connection.execute(LISTEN)
            self.pausing.look(self._connection)
        except (psycopg.Error, DatabaseError) as error:
            logger.warning("worker.not_registered", extra={"worker": self._name, "error": str(error)})
            self._drop()
            return False
        return True

    def watch(self) -> None:
        """Keep row and lock from now on, on a thread; to be called when the pool has forked."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name="jobbridge-presence", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Take the row away, and let go. Does nothing in a forked child."""
        if self._pid != os.getpid():
            return
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.execute(UNREGISTER, {"numbers": [self.number]})
        self._drop()

    def _keep(self) -> None:
        is_open, age, looked = self._connection is not None, 0.0, 0.0
        while not self._stopped.wait(CHECK):
            age, looked = age + CHECK, looked + CHECK
            if not is_open:
                is_open, age = self.open(), 0.0
            elif age >= REFRESH or not self._is_quiet():
                is_open, age = self._refresh(), 0.0
            elif self._was_told() or looked >= LOOK:
                is_open, looked = self._look(), 0.0

    def _is_quiet(self) -> bool:
        """Whether the server has not closed the session; asks nobody."""
        connection = self._connection
        if connection is None or connection.closed:
            return False
        try:
            connection.pgconn.consume_input()
        except psycopg.Error:
            return False
        return connection.pgconn.status == psycopg.pq.ConnStatus.OK

    def _was_told(self) -> bool:
        """Whether a queue was paused or resumed, by what `_is_quiet` has read."""
        assert self._connection is not None
        was_told = False
        while self._connection.pgconn.notifies() is not None:
            was_told = True
        return was_told

    def _refresh(self) -> bool:
        return self._with_session(self._write)

    def _look(self) -> bool:
        return self._with_session(self.pausing.look)

    def _with_session(self, use: Callable[[DriverConnection], None]) -> bool:
        assert self._connection is not None
        try:
            use(self._connection)
        except psycopg.Error as error:
            logger.warning("worker.session_lost", extra={"worker": self._name, "error": str(error)})
            self._drop()
            return self.open()
        return True

    def _write(self, connection: DriverConnection) -> None:
        connection.execute(
            REGISTER,
            {
                "number": self.number,
                "name": self._name,
                "engine": self._engine.value,
                "host": socket.gethostname(),
                "pid": self._pid,
                "queues": sorted(self._app.amqp.queues.consume_from),
                "sends_to": self._app.default_engine.value,
                "tasks": sorted(name for name in list(self._app.tasks) if not name.startswith("celery.")),
            },
        )

    def _drop(self) -> None:
        if self._connection is not None:
            close_held(self._connection)
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

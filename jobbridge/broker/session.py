"""One connection to Postgres, and what lives and dies with it: the leases, the LISTENs, the exclusive queues.

A consumer has a number, which the messages that it takes carry: that of its process, where something proves that the
process is here (a worker of JobBridge), else one of its own, on which the session holds an advisory lock. Postgres
frees the lock when the session ends, however it ends; who is dead is judged by `jobbridge.postgres.presence`. There
is no clock in it, so a task may run for days.

What could keep the session of a dead worker alive, a forked child that inherits the socket or a host that vanishes, is
dealt with where connections are opened (`jobbridge.postgres.connect`).

Source: PostgreSQL manual, "Advisory Locks".
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from jobbridge.broker.errors import BrokerError, BrokerNotMigrated, BrokerRefused, NotNow, SessionLost
from jobbridge.broker.routing import notification_channel
from jobbridge.errors import DatabaseRefused, DatabaseUnavailable
from jobbridge.postgres.connect import Connection, keep
from jobbridge.postgres.faults import Kind, kind_of, reason_of
from jobbridge.postgres.locks import CONSUMERS
from jobbridge.postgres.presence import Process, this_process
from jobbridge.postgres.target import Target

if TYPE_CHECKING:
    from jobbridge.broker.consume.passed import Passed

# The indexes are made for exactly these statements, while the size of these tables swings from nothing to millions:
# a plan made for the empty table must not be kept for the full one, so the other plans are ruled out for this session.
# What is left is the same for all parameters. Planned anew, a claim costs 0.35 ms for the plan, 0.06 ms for the work.
SETTINGS: Final = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

IS_MIGRATED = "SELECT to_regclass('jobbridge_broker.messages') IS NOT NULL AS is_migrated"

# The row becomes visible to others only when its lock is held already.
BECOME_CONSUMER = """
WITH consumer AS (
    INSERT INTO jobbridge_broker.consumers (host, pid, boot_id, pid_namespace, process_began)
    VALUES (%(host)s, %(pid)s, %(boot_id)s, %(pid_namespace)s, %(process_began)s)
    RETURNING id
)
SELECT id, pg_advisory_lock(%(base)s + id)
FROM consumer
"""

Row = dict[str, Any]


class Session:
    """One connection to Postgres. Statements commit themselves. Threads may share it; processes do not.

    Args:
        opened: Opens the connection; the session then owns it.
        target: Where that leads to.
        number_of_process: Gives the number under which the process holds leases; None: it has none.
    """

    def __init__(
        self,
        opened: Callable[[], Connection],
        target: Target,
        number_of_process: Callable[[], int | None] | None = None,
    ) -> None:
        self.pid = os.getpid()
        self.connection = _connect(opened)
        self._target = target
        self.consumer: int | None = None
        #: Whether that number is the process's: it lasts, whatever becomes of this session.
        self.is_of_process = False
        #: Whether what a session before this one left under that number was given back.
        self.has_counted = False
        #: Exclusive queues that were declared here.
        self.own_queues: set[str] = set()
        self._number_of_process = number_of_process
        #: Queues that were notified since somebody looked here, and whether something due later was published.
        self.notified: set[str] = set()
        self.is_due_notified = False
        #: Whether a suspect has come back to a queue (`consume.isolation`).
        self.is_suspect_notified = False
        #: By queue, where there is nothing any more.
        self.passed: dict[str, Passed] = {}
        self.close_callbacks: list[Callable[[], None]] = []
        self._queues_by_channel: dict[str, str] = {}
        self._lock = threading.RLock()
        self._is_closed = False
        self._socket = self.connection.pgconn.socket
        self.connection.add_notify_handler(self._on_notify)
        _open_sessions.add(self)
        self._prepare()

    def _prepare(self) -> None:
        try:
            row = self.one(IS_MIGRATED)
        except BaseException:
            self.close()
            raise
        if not row["is_migrated"]:
            self.close()
            raise BrokerNotMigrated("The broker's tables are missing from the database.")

    # -- statements

    def rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run a statement that gives rows.

        Raises:
            SessionLost: The connection is gone.
            NotNow: It could not be done, and the session is sound.
            psycopg.Error: Postgres refuses the statement.
        """
        return self._run(statement, parameters).fetchall()

    def one(self, statement: str, parameters: Mapping[str, Any] | None = None) -> Row:
        """Run a statement that gives one row."""
        return self.rows(statement, parameters)[0]

    def run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> int:
        """Run a statement, and give the number of rows that it touched."""
        return self._run(statement, parameters).rowcount

    def _run(self, statement: str, parameters: Mapping[str, Any] | None) -> psycopg.Cursor[Row]:
        with self._guarded():
            cursor = self.connection.cursor(row_factory=dict_row, binary=True)
            return cursor.execute(statement, parameters, prepare=True)

    def run_many(self, statement: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement for each of `rows`, in one transaction and few round trips."""
        with self.transaction(), self._guarded():
            self.connection.cursor().executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the statements inside take effect together."""
        with self._lock, self._guarded(), self.connection.transaction():
            yield

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if not self.is_alive:
            raise SessionLost("The session with Postgres has ended.")
        with self._lock:
            try:
                yield
            except psycopg.Error as error:
                match kind_of(error, self.connection):
                    case Kind.LOST:
                        self.connection.close()
                        raise SessionLost(f"The session with Postgres ended: {reason_of(error)}") from error
                    case Kind.TRANSIENT:
                        raise NotNow(f"Postgres could not do it now: {reason_of(error)}") from error
                raise

    # -- consuming

    def become_consumer(self) -> int:
        """Give the number under which this session consumes, taking one, with its lock, at the first call.

        Raises:
            SessionLost: The process cannot prove now that it is here.
            BrokerRefused: A pooler gives this session to others, too.
        """
        if self.consumer is None:
            self._keep()
            number = self._number_of_process() if self._number_of_process is not None else None
            self.is_of_process = number is not None
            self.consumer = self._take_number() if number is None else number
        return self.consumer

    def _keep(self) -> None:
        try:
            with self._guarded():
                keep(self.connection, self._target, SETTINGS)
        except DatabaseUnavailable as error:
            raise in_our_words(error) from error

    def _take_number(self) -> int:
        process = this_process()
        named: dict[str, Any] = {name: getattr(process, name) for name in Process.__slots__}
        return int(self.one(BECOME_CONSUMER, named | {"base": CONSUMERS})["id"])

    def listen(self, queue: str) -> None:
        """Be notified from now on when something is published to the queue."""
        channel = notification_channel(queue)
        with self._guarded():
            self.connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        self._queues_by_channel[channel] = queue

    def unlisten(self, queue: str) -> None:
        """Be notified no longer."""
        channel = notification_channel(queue)
        if self._queues_by_channel.pop(channel, None) is not None:
            with self._guarded():
                self.connection.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))

    def _on_notify(self, notification: psycopg.Notify) -> None:
        queue = self._queues_by_channel.get(notification.channel)
        if queue is None:
            return
        if notification.payload == "due":
            self.is_due_notified = True
        else:
            self.notified.add(queue)
            self.is_suspect_notified |= notification.payload == "suspect"

    @property
    def has_news(self) -> bool:
        """Whether it was told of something that nobody has looked at yet; statements read that, too."""
        return bool(self.notified) or self.is_due_notified

    def receive(self) -> None:
        """Read what the server sent unasked; never waits.

        Raises:
            SessionLost: The server closed the connection.
        """
        with self._guarded():
            pgconn = self.connection.pgconn
            pgconn.consume_input()  # type: ignore[no-untyped-call,unused-ignore]  # C extension
            while notification := pgconn.notifies():
                # psycopg calls its handlers only from its own loop (psycopg 3.3, generators.py), not from here.
                self._on_notify(
                    psycopg.Notify(
                        notification.relname.decode(), notification.extra.decode(), notification.be_pid
                    )
                )
            if pgconn.status != psycopg.pq.ConnStatus.OK:
                raise psycopg.OperationalError("the server closed the connection")

    def wait(self, seconds: float) -> None:
        """Wait until the server sends something, at most `seconds`, and read it."""
        if self.has_news:
            return
        poller = select.poll()
        poller.register(self._socket, select.POLLIN | select.POLLERR | select.POLLHUP)
        if poller.poll(max(seconds, 0) * 1000):
            self.receive()

    # -- life

    def fileno(self) -> int:
        return self._socket

    @property
    def is_alive(self) -> bool:
        return not self._is_closed and self.pid == os.getpid() and not self.connection.closed

    def close(self) -> None:
        """End the session. Nothing happens when it is closed, lost, or of another process."""
        if self._is_closed or self.pid != os.getpid():
            return
        with contextlib.suppress(SessionLost, psycopg.Error):
            for callback in self.close_callbacks:
                callback()
        self._is_closed = True
        _open_sessions.discard(self)
        self.connection.close()


def _connect(opened: Callable[[], Connection]) -> Connection:
    try:
        connection = opened()
    except DatabaseUnavailable as error:
        raise in_our_words(error) from error
    except psycopg.Error:
        raise
    except Exception as error:
        # SQLAlchemy asks its first connection a few things, and wraps what comes of it (`DBAPIError.orig`).
        cause = getattr(error, "orig", None)
        if isinstance(cause, psycopg.Error) and kind_of(cause) in (Kind.LOST, Kind.TRANSIENT):
            raise SessionLost(f"The session was lost as it began: {cause}") from error
        raise
    # Prepared statements differ by the types of parameters, and None has none: a few for each statement.
    connection.prepared_max = 500
    return connection


def in_our_words(error: DatabaseUnavailable) -> BrokerError:
    """Tell what waiting cures from what it does not."""
    if isinstance(error, DatabaseRefused):
        return BrokerRefused(str(error), hint=error.hint)
    return SessionLost(str(error))


# -- exit

_open_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _close_own() -> None:
    for session in list(_open_sessions):
        session.close()  # nothing happens in a forked child


atexit.register(_close_own)

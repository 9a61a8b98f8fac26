"""Hears which jobs have ended: one connection for all threads of a process that wait for results.

A thread listens while somebody waits and for `IDLE` after that. What it hears wakes who waits for that job, and they
look: a notification is a hint. So who waits also looks by itself, often until the listener has been there for
`SETTLING` (what ended while it came was told to nobody), then every `interval` of its own. What the process has sent
since then is not looked at before it is told: it has not ended. Where nobody can listen (a pooler, a database that has
not migrated yet, a role that may not write) looking is all there is.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from jobbridge.app.publish.message.ids import new_task_id
from jobbridge.core.enqueue import Outcome
from jobbridge.core.keys import job_id_for
from jobbridge.errors import DatabaseRefused, DatabaseUnavailable
from jobbridge.postgres.connect import Connection, close, connect
from jobbridge.postgres.faults import Kind, kind_of, reason_of
from jobbridge.postgres.listen import notified
from jobbridge.postgres.target import Target
from jobbridge.store.workers.awaiters import AWAIT, CHANNEL, LEASE, LEAVE, LONGEST

if TYPE_CHECKING:
    from jobbridge.app.options import Sent

logger = logging.getLogger(__name__)

#: Seconds that a listener stays when nobody waits any more.
IDLE: Final = 30.0
#: Seconds after which no transaction of before is expected to commit an end without telling it.
SETTLING: Final = 1.0
#: Seconds until one is tried again: that was lost, and that was refused.
PAUSE: Final = 5.0
LONG_PAUSE: Final = 300.0
#: Of so many jobs that were sent here it knows that they have not ended.
_SENT: Final = 1000
#: Seconds after which it looks whether it still has something to do.
_TICK: Final = 5.0


class Waiting:
    """One caller that waits for some jobs."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._told: set[str] = set()
        self._bell = threading.Event()

    def ring(self, name: str | None) -> None:
        """Wake it: this name was told; or no more will be, for now."""
        if name is not None:
            self._told.add(name)
        self._bell.set()

    def wait(self, seconds: float) -> set[str]:
        """Wait for at most `seconds`, and give what was told since the last time."""
        self._bell.wait(seconds)
        self._bell.clear()
        told, self._told = self._told, set()
        return told


class ResultListener:
    """The listener of a process for one database; nothing is opened before somebody waits."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._forget()
        _listeners.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._awaiter_id = uuid.uuid4()
        self._waiting: dict[str, set[Waiting]] = defaultdict(set)
        self._sent: dict[str, None] = {}
        self._thread: threading.Thread | None = None
        self._listens_since: float | None = None
        self._not_before = 0.0
        self._connection: Connection | None = None
        self._is_closed = False

    @property
    def is_reliable(self) -> bool:
        """Whether an end is told for sure, as long as the listener lives."""
        since = self._listens_since
        return since is not None and time.monotonic() - since >= SETTLING

    @property
    def waited_for(self) -> Collection[str]:
        """What somebody waits for just now."""
        with self._lock:
            return list(self._waiting)

    @contextmanager
    def waiting_for(self, names: Iterable[str]) -> Iterator[Waiting]:
        """Have names told as they are notified: ids of jobs, and keys. Who sleeps calls `listen` first."""
        waiting = Waiting(name[:LONGEST] for name in names)
        with self._lock:
            for name in waiting.names:
                self._waiting[name].add(waiting)
        try:
            yield waiting
        finally:
            with self._lock:
                for name in waiting.names:
                    self._waiting[name].discard(waiting)
                    if not self._waiting[name]:
                        del self._waiting[name]

    def note_sending(self, name: str) -> None:
        with self._lock:
            self._sent[name] = None
            if len(self._sent) > _SENT:
                del self._sent[next(iter(self._sent))]

    def note_not_sent(self, name: str) -> None:
        with self._lock:
            self._sent.pop(name, None)

    def will_tell(self, task_id: str) -> bool:
        """Whether a job was sent here and has not ended yet: who waits for it by now will be told."""
        return str(job_id_for(task_id)) in self._sent

    def close(self) -> None:
        """Stop listening; who waits next begins anew."""
        with self._lock:
            self._is_closed, thread, connection = True, self._thread, self._connection
            if connection is not None:
                with (
                    suppress(psycopg.Error, OSError),
                    socket.socket(fileno=os.dup(connection.fileno())) as end,
                ):
                    end.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=_TICK)

    def listen(self) -> None:
        """Begin to, unless it does."""
        if self._thread is not None:
            return
        with self._lock:
            self._is_closed = False
            if self._thread is None and time.monotonic() >= self._not_before:
                self._thread = threading.Thread(target=self._run, name="jobbridge-results", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            connection = connect(self._target, "results", keeps_session=True, must_write=True)
            try:
                with self._lock:
                    self._connection = connection
                self._listen(connection)
            finally:
                with self._lock:
                    self._connection = None
                close(connection)
        except (psycopg.Error, DatabaseUnavailable, OSError) as error:
            if not self._is_closed:
                logger.info("results.not_heard", extra={"error": reason_of(error)})
                is_refused = isinstance(error, DatabaseRefused) or kind_of(error) in (
                    Kind.REFUSED,
                    Kind.WRONG,
                )
                self._not_before = time.monotonic() + (LONG_PAUSE if is_refused else PAUSE)
        finally:
            self._end()

    def _listen(self, connection: Connection) -> None:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        who = {"awaiter_id": self._awaiter_id, "lease": LEASE}
        renewed_at = waited_at = float("-inf")
        while not self._is_closed:
            now = time.monotonic()
            if self._waiting:
                waited_at = now
            if now - waited_at > IDLE:
                connection.execute(LEAVE, who)
                return
            if now - renewed_at > LEASE.total_seconds() / 2:
                connection.execute(AWAIT, who)
                renewed_at = now
                self._listens_since = self._listens_since or time.monotonic()
            for name in notified(connection, _TICK):
                self._tell(name)

    def _tell(self, name: str) -> None:
        with self._lock:
            self._sent.pop(name, None)
            for waiting in self._waiting.get(name, ()):
                waiting.ring(name)

    def _end(self) -> None:
        with self._lock:
            self._thread = self._listens_since = None
            self._sent.clear()
            for waiting in {one for some in self._waiting.values() for one in some}:
                waiting.ring(None)


@contextmanager
def noting(
    listener: ResultListener | None, options: dict[str, Any], sent: ContextVar[Sent | None]
) -> Iterator[None]:
    """Note that a job is sent inside: until the listener is told of it there is nothing to see of its end.

    Args:
        listener: None: nobody waits in this process.
        options: Of `send_task`. Without a listener the id is left to who sends: a new one is known to be new there.
        sent: What came of it, when it was sent. What there was before, or has no row, is forgotten again.
    """
    if listener is None or not listener.is_reliable:
        yield
        return
    task_id = options["task_id"] = options.get("task_id") or new_task_id()
    name = str(job_id_for(task_id))
    listener.note_sending(name)
    is_new = False
    try:
        yield
        told = sent.get()
        is_new = told is not None and told.outcome is Outcome.CREATED and told.task_id == task_id
    finally:
        if not is_new:
            listener.note_not_sent(name)


_listeners: weakref.WeakSet[ResultListener] = weakref.WeakSet()


def _after_fork() -> None:
    # The thread stayed with the parent, and perhaps a lock that it held.
    for listener in list(_listeners):
        listener._forget()  # its own module


os.register_at_fork(after_in_child=_after_fork)

"""The connections of one process that are lent for a moment: opened when asked for, the last one used first.

A pool belongs to the process that made it. No thread keeps it (a forked child would miss it), and no round trip checks
a connection before it is lent: a server that went away has left something to read on the socket.

What a thread waits for when all are lent is that another one gives back; so a thread that has one, and asks for a
second one within, is given it at once. Otherwise all could wait for each other: steps inside transactions did.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

import psycopg

from jobbridge.errors import DatabaseUnavailable
from jobbridge.postgres import on_loop
from jobbridge.postgres.connect import Connection, close, is_there


class Pool:
    """Connections of this process.

    Args:
        open_one: Opens one, or raises.
        kept: So many stay open when nobody uses them.
        most: So many threads have one at a time; the others wait.
        patience: For how long, in seconds.
    """

    def __init__(
        self, open_one: Callable[[], Connection], *, kept: int, most: int, patience: float = 30.0
    ) -> None:
        self.kept, self.most = kept, most
        self._open_one, self._patience = open_one, patience
        self._idle: list[Connection] = []
        self._holders = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._own = threading.local()

    @contextlib.contextmanager
    def lend(self) -> Iterator[Connection]:
        """Lend a connection, with no transaction open.

        Raises:
            DatabaseUnavailable: None can be opened, or none became free.
        """
        with self._as_holder():
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)

    def forget_idle(self) -> None:
        """Close those that are not lent: one was lost, and what ended it has likely ended the others."""
        with self._changed:
            idle, self._idle = self._idle, []
        for connection in idle:
            close(connection)

    def close(self) -> None:
        """Close those that are not lent; the others when they come back."""
        with self._changed:
            self._is_closed = True
        self.forget_idle()

    @contextlib.contextmanager
    def _as_holder(self) -> Iterator[None]:
        if getattr(self._own, "is_holder", False):
            yield
            return
        is_counted = False
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: self._holders < self.most, self._patience):
                    raise DatabaseUnavailable(
                        f"None of {self.most} connections to Postgres became free within {self._patience:g} s.",
                        hint="Run fewer threads in one process, or give Database a larger pool.",
                    )
                self._holders += 1
                is_counted = self._own.is_holder = True
            yield
        finally:
            if is_counted:
                self._own.is_holder = False
                with self._changed:
                    self._holders -= 1
                    self._changed.notify()

    def _take(self) -> Connection:
        while True:
            with self._changed:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._open_one()
            if is_there(connection):
                return connection
            close(connection)

    def _give_back(self, connection: Connection) -> None:
        status = connection.info.transaction_status
        if status in (psycopg.pq.TransactionStatus.INTRANS, psycopg.pq.TransactionStatus.INERROR):
            with contextlib.suppress(psycopg.Error):  # then it is not idle, and is closed
                connection.rollback()
        is_sound = connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        with self._changed:
            if is_sound and not self._is_closed and len(self._idle) < self.kept:
                self._idle.append(connection)
                return
        close(connection)


class LoopPool(Pool):
    """Those that synchronous code has on one event loop (`on_loop`). Who finds all lent waits on the loop."""

    def __init__(
        self, open_one: Callable[[], Connection], *, kept: int, most: int, patience: float = 30.0
    ) -> None:
        super().__init__(open_one, kept=kept, most=most, patience=patience)
        self._free = asyncio.Semaphore(most)

    @contextlib.contextmanager
    def _as_holder(self) -> Iterator[None]:
        holds: set[int] = on_loop.current().holds
        if id(self) in holds:
            yield
            return
        try:
            on_loop.wait(asyncio.wait_for(self._free.acquire(), self._patience))
        except TimeoutError:
            raise DatabaseUnavailable(
                f"None of {self.most} connections to Postgres became free within {self._patience:g} s.",
                hint="Have fewer transactions open on one loop.",
            ) from None
        holds.add(id(self))
        try:
            yield
        finally:
            holds.discard(id(self))
            self._free.release()

"""Connections to the job tables: opened when used, one pool per process, never carried over a fork.

Statements go to psycopg, which prepares them after a few uses: a bookkeeping statement is one round trip. The loss of a
connection that the pool could not see (it went away in between) is repeated by `Database.run`.

What happens to a fault (`jobbridge.postgres.faults`): *lost* and *transient* become DatabaseUnavailable, which is safe
to retry, and `run` tries again itself; *wrong* becomes NotMigrated, *refused* a DatabaseError with a hint.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import psycopg

from jobbridge.codec.sealing import PLAIN, Codec
from jobbridge.errors import DatabaseError, DatabaseRefused, DatabaseUnavailable, NotMigrated
from jobbridge.postgres import on_loop
from jobbridge.postgres.caller_connection import DriverConnection, speaking_connection
from jobbridge.postgres.connect import Connection, close, connect, keep
from jobbridge.postgres.faults import Kind, is_interrupted, kind_of, reason_of
from jobbridge.postgres.pool import LoopPool, Pool
from jobbridge.postgres.target import Target
from jobbridge.store.schema_range import check_revision

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

CallersConnection: TypeAlias = (
    Any  # psycopg, SQLAlchemy Connection or Session, Django: see `caller_connection`
)
_Result = TypeVar("_Result")


#: Seconds before the next try, by what went wrong. Deadlocks and cancelled statements are over in a moment.
_PAUSES = {Kind.LOST: (0.0,), Kind.TRANSIENT: (0.02, 0.1, 0.5)}


@dataclass(slots=True)
class _PerProcess:
    pool: Pool
    checked_at: float = field(default=float("-inf"))

    def close(self) -> None:
        self.pool.close()


class Database:
    """The Postgres that holds the job tables.

    Args:
        url: `postgresql://…` in any form, also the broker's URL.
        kept: Connections that stay open, per process.
        most: Threads of one process that may have one at a time; see `make_room`.
        connect_timeout: Seconds, for each host.
        check_schema_after: Seconds for which it is taken for granted that the tables serve this release.
        purpose: Of its connections, for `pg_stat_activity`.
        session_settings: Of Postgres, for their sessions.
        codec: Seals what jobs carry, and opens it.
    """

    def __init__(
        self,
        url: str,
        *,
        kept: int = 3,
        most: int = 15,
        connect_timeout: int = 10,
        check_schema_after: float = 10.0,
        purpose: str = "jobs",
        session_settings: Mapping[str, str] | None = None,
        codec: Codec = PLAIN,
    ) -> None:
        self.target = Target.of(url)
        self.codec = codec
        self._purpose, self._session_settings = purpose, session_settings
        self._kept, self._most = kept, most
        self._connect_timeout = connect_timeout
        self._check_schema_after = check_schema_after
        # A parent's entry stays here in its child, untouched: to drop it would close sockets that are the parent's.
        self._by_process: dict[int, _PerProcess] = {}

    def __repr__(self) -> str:
        return f"Database({self.target!s})"

    @property
    def url(self) -> URL:
        """In SQLAlchemy's form, for whoever queries by it; with the password."""
        return self.target.sqlalchemy_url()

    @property
    def most(self) -> int:
        """How many threads of one process may have a connection at a time."""
        return self._most

    def make_room(self, threads: int) -> None:
        """Let so many threads of this process work at once, beside those that look after it.

        Args:
            threads: Of the worker's pool.
        """
        self._kept, self._most = max(self._kept, threads), max(self._most, threads + 5)
        if (here := self._by_process.get(os.getpid())) is not None:
            here.pool.kept, here.pool.most = self._kept, self._most

    def check_sessions(self) -> None:
        """Make sure that a session here can hold locks, and LISTEN.

        Raises:
            DatabaseRefused: A pooler stands between that gives it to others, too.
            DatabaseUnavailable: Postgres cannot be reached.
        """
        with self._here().pool.lend() as connection:
            keep(connection, self.target)

    @contextmanager
    def connection(self, *, check_schema: bool = True) -> Iterator[DriverConnection]:
        """Lend a psycopg connection in autocommit mode.

        Raises:
            DatabaseUnavailable: Postgres cannot be reached, went away within the block, or could not do it now.
            NotMigrated: The tables are missing or older than this release works on.
            SchemaTooNew: They no longer serve it.
        """
        pool = self._here().pool
        with pool.lend() as connection:
            try:
                if check_schema:
                    self._check_schema(connection)
                yield connection
            except BaseException as error:
                kind = kind_of(error, connection) if isinstance(error, psycopg.Error) else None
                if kind is Kind.LOST or is_interrupted(connection):
                    close(connection)
                if kind is Kind.LOST:
                    pool.forget_idle()
                if kind in (Kind.LOST, Kind.TRANSIENT):
                    raise DatabaseUnavailable(f"{self.target} cannot be used: {reason_of(error)}") from error
                raise

    @contextmanager
    def transaction(self, connection: CallersConnection | None = None) -> Iterator[DriverConnection]:
        """Lend a psycopg connection inside a transaction: commit at the end, roll back on an error.

        Args:
            connection: The caller's own: then it is the caller who commits. If that is in autocommit mode and no
                transaction is open, the block is one.

        Raises:
            NotMigrated, SchemaTooNew: As for `connection`.
        """
        if connection is None:
            with self.connection() as own, own.transaction():
                yield own
            return
        theirs = self.on(connection)
        if theirs.autocommit and theirs.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            with theirs.transaction():
                yield theirs
        else:
            yield theirs

    def check(self) -> None:
        """Make sure that the tables are there and serve this release, unless that was seen a moment ago.

        Raises:
            DatabaseUnavailable, NotMigrated, SchemaTooNew: As for `connection`.
        """
        if time.monotonic() - self._here().checked_at >= self._check_schema_after:
            with self.connection():
                pass  # it looks

    def on(self, connection: CallersConnection) -> DriverConnection:
        """Give the psycopg connection beneath the caller's own, for one statement: it is the caller who commits.

        Raises:
            NotMigrated, SchemaTooNew: As for `connection`.
        """
        theirs = self.beneath(connection)
        self._check_schema(theirs)
        return theirs

    def beneath(self, connection: CallersConnection) -> DriverConnection:
        """Give it without a look at the tables."""
        return speaking_connection(connection, self.target.schema)

    def run(
        self,
        work: Callable[[DriverConnection], _Result],
        *,
        again: Callable[[DriverConnection], _Result] | None = None,
        check_schema: bool = True,
    ) -> _Result:
        """Do `work` on a connection in autocommit mode; again if the connection turns out to be lost.

        Also again if Postgres could not do it now: then its last statement did nothing.

        Args:
            work: It must bear to be done twice: the loss may hide that the first time succeeded.
            again: What to do from the second time on instead.
            check_schema: False: whatever the tables are now, try.

        Raises:
            DatabaseUnavailable: Postgres cannot be reached, or cannot do it, also the last time.
            DatabaseError: Postgres refused a statement; NotMigrated, if for want of our tables.
        """
        tries = 0
        while True:
            try:
                with self.connection(check_schema=check_schema) as connection:
                    return (again or work)(connection) if tries else work(connection)
            except DatabaseRefused:
                raise
            except DatabaseUnavailable as error:
                pauses = _PAUSES[Kind.TRANSIENT if _is_transient(error) else Kind.LOST]
                if tries >= len(pauses):
                    raise
                on_loop.sleep(pauses[tries])
                tries += 1
            except psycopg.Error as error:
                raise refusal(error) from error

    def ask(self, work: Callable[[DriverConnection], _Result], *, otherwise: _Result) -> _Result:
        """Do `work` as `run` does; give `otherwise` if a value that it asks for cannot be any.

        That is a tenant that is no uuid, where tenants are uuids: there is no such tenant.
        """
        try:
            return self.run(work)
        except DatabaseError as error:
            if isinstance(error.__cause__, psycopg.errors.InvalidTextRepresentation):
                return otherwise
            raise

    def close(self) -> None:
        """Close this process's connections. The next use opens new ones."""
        here = self._by_process.pop(os.getpid(), None)
        if here is not None:
            here.close()
        on_loop.forget(self)

    def _here(self) -> _PerProcess:
        if on_loop.current() is not None:
            return on_loop.of_loop(self, lambda: _PerProcess(self._make_pool(is_on_loop=True)))
        pid = os.getpid()
        # No lock, which a fork could copy while it is held; a pool that loses this race never connected.
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _PerProcess(self._make_pool()))

    def _check_schema(self, connection: DriverConnection) -> None:
        """Ask now and then, for a later release may migrate at any time; what fails is asked for each time."""
        here = self._here()
        if time.monotonic() - here.checked_at >= self._check_schema_after:
            check_revision(connection)
            here.checked_at = time.monotonic()

    def _make_pool(self, *, is_on_loop: bool = False) -> Pool:
        if is_on_loop:
            return LoopPool(partial(self._open, is_on_loop=True), kept=self._kept, most=on_loop.MOST)
        return Pool(self._open, kept=self._kept, most=self._most)

    def _open(self, *, is_on_loop: bool = False) -> Connection:
        given = {"connect_timeout": self._connect_timeout, **self.target.parameters}
        return connect(
            self.target,
            self._purpose,
            settings=self._session_settings,
            parameters=given,
            is_on_loop=is_on_loop,
        )


def refusal(error: psycopg.Error) -> DatabaseError:
    """Say in our words why Postgres refused a statement."""
    message = error.diag.message_primary or str(error)
    if kind_of(error) is Kind.WRONG:
        return NotMigrated(f"The job tables are missing or of another release: {message}.")
    hint = ""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        hint = (
            "Grant the role of DATABASE_URL the rights on the job tables, or use the role that migrated them."
        )
    return DatabaseError(f"Postgres refused a statement: {message}.", hint=hint)


def _is_transient(error: DatabaseUnavailable) -> bool:
    cause = error.__cause__
    return isinstance(cause, psycopg.Error) and kind_of(cause) is Kind.TRANSIENT

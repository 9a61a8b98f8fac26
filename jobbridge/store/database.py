"""Connections to the job tables: opened when used, one pool per process, never carried over a fork.

A pool's connections are checked without a round trip: a server that went away has left something to read on the
socket. What that cannot see (it goes away in between) is repeated once by `Database.run`.

SQLAlchemy pools; statements go to the driver's own connection (psycopg), which prepares them after a few uses: a
bookkeeping statement is one round trip.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url

from jobbridge.errors import ConfigurationError, DatabaseError, DatabaseUnavailable, NotMigrated
from jobbridge.postgres.caller_connection import DriverConnection, driver_connection
from jobbridge.store.schema_range import check_revision

#: Prefix of any of our URL forms: `postgres://`, `postgresql+psycopg://`, the broker's `jobbridge+postgresql://`.
_POSTGRES_SCHEME = re.compile(r"^(?:[\w.:]+\+)?postgres(?:ql)?(?:\+\w+)?://")

#: Unless the URL says otherwise. Instants come back as UTC, whatever the server's own zone.
_CONNECT: dict[str, Any] = {"application_name": "jobbridge", "options": "-c TimeZone=UTC"}

CallersConnection: TypeAlias = (
    Any  # psycopg, SQLAlchemy Connection or Session, Django: see `caller_connection`
)
_Result = TypeVar("_Result")


@dataclass(slots=True)
class _PerProcess:
    engine: sa.Engine
    is_checked: bool = field(default=False)


class Database:
    """The Postgres that holds the job tables.

    Args:
        url: `postgresql://…` in any form, also the broker's URL.
        pool_size: Connections that stay open, per process.
        max_overflow: Connections beyond those, closed after use.
        connect_timeout: Seconds.
    """

    def __init__(
        self, url: str, *, pool_size: int = 3, max_overflow: int = 12, connect_timeout: int = 10
    ) -> None:
        self._url = sqlalchemy_url(url)
        self._pool_size = pool_size
        self._max_overflow = max_overflow
        self._connect_timeout = connect_timeout
        # A parent's entry stays here in its child, untouched: to drop it would close sockets that are the parent's.
        self._by_process: dict[int, _PerProcess] = {}

    def __repr__(self) -> str:
        return f"Database({self._url.render_as_string(hide_password=True)!r})"

    @property
    def url(self) -> URL:
        return self._url

    @property
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine of this process; autocommit."""
        return self._here().engine

    @contextmanager
    def connection(self, *, check_schema: bool = True) -> Iterator[DriverConnection]:
        """Lend a psycopg connection in autocommit mode.

        Raises:
            DatabaseUnavailable: Postgres cannot be reached, or went away within the block.
            NotMigrated: The tables are missing or older than this release works on.
            SchemaTooNew: They no longer serve it.
        """
        here = self._here()
        pooled = self._checkout(here)
        connection: DriverConnection = pooled.driver_connection  # type: ignore[assignment]  # the dialect's own
        try:
            if check_schema and not here.is_checked:
                check_revision(connection)
                here.is_checked = True
            yield connection
        except BaseException as error:
            is_interrupted = _is_interrupted(connection)
            is_gone = connection.closed or (is_interrupted and _is_of_the_socket(error))
            if is_gone or is_interrupted:
                pooled.invalidate()
            if is_gone and isinstance(error, psycopg.Error):
                raise self._unavailable(error) from error
            raise
        finally:
            pooled.close()

    @contextmanager
    def transaction(self, connection: CallersConnection | None = None) -> Iterator[DriverConnection]:
        """Lend a psycopg connection inside a transaction: commit at the end, roll back on an error.

        Args:
            connection: The caller's own: then it is the caller who commits. If that is in autocommit mode and no
                transaction is open, the block is one.
        """
        if connection is None:
            with self.connection() as own, own.transaction():
                yield own
            return
        theirs = driver_connection(connection)
        if theirs.autocommit and theirs.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            with theirs.transaction():
                yield theirs
        else:
            yield theirs

    def run(
        self,
        work: Callable[[DriverConnection], _Result],
        *,
        again: Callable[[DriverConnection], _Result] | None = None,
    ) -> _Result:
        """Do `work` on a connection in autocommit mode; once more if the connection turns out to be lost.

        Also once more if Postgres chose it to end a deadlock: then nothing of it was done.

        Args:
            work: It must bear to be done twice: the loss may hide that the first time succeeded.
            again: What to do the second time instead.

        Raises:
            DatabaseUnavailable: Postgres cannot be reached, also the second time.
            DatabaseError: Postgres refused a statement; NotMigrated, if for want of our tables.
        """
        try:
            try:
                with self.connection() as connection:
                    return work(connection)
            except (DatabaseUnavailable, psycopg.errors.DeadlockDetected):
                with self.connection() as connection:
                    return (again or work)(connection)
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
            here.engine.dispose()

    def _here(self) -> _PerProcess:
        pid = os.getpid()
        # No lock, which a fork could copy while it is held; an engine that loses this race never connected.
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _PerProcess(self._make_engine()))

    def _make_engine(self) -> sa.Engine:
        engine = sa.create_engine(
            self._url,
            isolation_level="AUTOCOMMIT",
            pool_size=self._pool_size,
            max_overflow=self._max_overflow,
            pool_use_lifo=True,
            connect_args=_CONNECT | {"connect_timeout": self._connect_timeout} | dict(self._url.query),
        )
        event.listen(engine, "checkout", _refuse_stale)
        return engine

    def _checkout(self, here: _PerProcess) -> sa.PoolProxiedConnection:
        try:
            return here.engine.raw_connection()
        except exc.DBAPIError as error:
            raise self._unavailable(error.orig or error) from error
        except psycopg.OperationalError as error:
            raise self._unavailable(error) from error
        except exc.TimeoutError as error:
            raise DatabaseUnavailable(
                f"No connection to {self._where()} became free: {error.args[0]}",
                hint="Run fewer threads in one process, or give Database a larger pool.",
            ) from error

    def _unavailable(self, error: BaseException) -> DatabaseUnavailable:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        hint = ""
        if "does not exist" in reason:
            hint = "Create the database or the role, or correct DATABASE_URL."
        elif "authentication failed" in reason:
            hint = "Correct the user or the password in DATABASE_URL."
        return DatabaseUnavailable(f"{self._where()} cannot be used: {reason}", hint=hint)

    def _where(self) -> str:
        host = self._url.host or self._url.query.get("host") or "the local socket"
        port = f":{self._url.port}" if self._url.port else ""
        return f"Postgres database {self._url.database!r} at {host}{port}"


def sqlalchemy_url(url: str) -> URL:
    """Read any of our URL forms as SQLAlchemy's URL with the psycopg driver.

    Raises:
        ConfigurationError: It is no URL of Postgres.
    """
    scheme = _POSTGRES_SCHEME.match(url)
    if scheme is None:
        shown = url.split("://", 1)[0] if "://" in url else "no scheme"
        raise ConfigurationError(
            f"The database URL is not one of Postgres: {shown!r}.",
            hint="Write it as postgresql://user:password@host:5432/database.",
        )
    try:
        return make_url("postgresql+psycopg://" + url[scheme.end() :])
    except (exc.ArgumentError, ValueError) as error:
        raise ConfigurationError(
            "The database URL cannot be read.",
            hint="Write it as postgresql://user:password@host:5432/database, special characters as %XX.",
        ) from error


def refusal(error: psycopg.Error) -> DatabaseError:
    """Say in our words why Postgres refused a statement."""
    message = error.diag.message_primary or str(error)
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return NotMigrated(f"The job tables are missing or of another release: {message}.")
    hint = "If it speaks of a lock or a deadlock, try again."
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        hint = (
            "Grant the role of DATABASE_URL the rights on the job tables, or use the role that migrated them."
        )
    return DatabaseError(f"Postgres refused a statement: {message}.", hint=hint)


def _is_interrupted(connection: DriverConnection) -> bool:
    # A signal's exception (Celery's soft time limit) ended the wait for an answer, which is still to come.
    return connection.info.transaction_status is psycopg.pq.TransactionStatus.ACTIVE


def _is_of_the_socket(error: BaseException) -> bool:
    # A reset that psycopg meets while it waits is an error before libpq has noticed: `closed` is false still.
    return isinstance(error, psycopg.OperationalError) and error.sqlstate is None


def _refuse_stale(dbapi_connection: DriverConnection, _record: object, _proxy: object) -> None:
    """Make the pool drop a connection whose server went away, without asking the server.

    An idle connection has nothing to read, unless the server said good-bye or closed.
    """
    try:
        poller = select.poll()
        poller.register(dbapi_connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        if not poller.poll(0):
            return
        dbapi_connection.pgconn.consume_input()
    except (psycopg.OperationalError, OSError, ValueError) as error:
        raise exc.DisconnectionError(str(error)) from error
    if dbapi_connection.closed:
        raise exc.DisconnectionError("the server closed the connection")

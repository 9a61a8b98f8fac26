"""The connection that a caller brings along: psycopg's, SQLAlchemy's or Django's, down to the driver's.

It may be set up in its owner's way: what rows are, how `jsonb` is read (Django 5.2: as text). So a cursor on it is made
by `cursor_on`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, TypeAlias, TypeVar, cast

import psycopg
from psycopg.pq import Format
from psycopg.rows import RowFactory
from psycopg.types.json import JsonbLoader

from jobbridge.errors import ConfigurationError, UnsupportedOption
from jobbridge.postgres import on_loop
from jobbridge.postgres.connect import Connection
from jobbridge.postgres.psycopg2_connection import Psycopg2Connection, is_of_psycopg2, over_psycopg2
from jobbridge.postgres.schema.names import PUBLIC
from jobbridge.postgres.schema.rendering import schema_of, speak, speaking

DriverConnection: TypeAlias = "psycopg.Connection[Any]"
_Row = TypeVar("_Row")
_JSONB = psycopg.adapters.types["jsonb"].oid


class _Borrowed(Connection):
    """Another face of a connection that a caller has: the same session, with psycopg's own types."""

    def __del__(self, *_: Any) -> None:
        """Nothing: it is the caller's."""


class _BorrowedOnLoop(_Borrowed):
    """The synchronous face of one that belongs to a loop."""

    is_on_loop = True
    owner: psycopg.AsyncConnection[Any]

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        on_loop.require()
        return super().wait(gen, *arguments, **named)

    async def _waited(self, gen: Any) -> Any:
        async with self.owner.lock:
            return await super()._waited(gen)


def borrowed(owner: psycopg.AsyncConnection[Any] | DriverConnection) -> Connection:
    """Give a face of a caller's connection that reads what Postgres gives as our statements expect it.

    Of one that belongs to a loop it is synchronous, for code that `on_loop.run` runs.
    """
    pgconn = owner.pgconn
    handlers = pgconn.notice_handler, pgconn.notify_handler
    connection: _Borrowed
    if isinstance(owner, psycopg.AsyncConnection):
        connection = _BorrowedOnLoop(pgconn)
        connection.owner = owner
    else:
        connection = _Borrowed(pgconn)
        connection.lock = owner.lock  # two threads of his take turns, whichever face they have
    pgconn.notice_handler, pgconn.notify_handler = handlers
    connection._autocommit, connection.prepare_threshold = owner.autocommit, None
    return connection


def speaking_connection(connection: object, schema: str) -> DriverConnection:
    """Give the driver's connection beneath a caller's, with our statements said for a schema; his own stay as they are.

    Raises:
        UnsupportedOption: As of `driver_connection`.
    """
    found = driver_connection(connection)
    if schema_of(found) == schema:
        return found
    if over_psycopg2(found) is None and not isinstance(found, _Borrowed):
        found = borrowed(found)
    speak(found, schema)
    return found


def driver_connection(connection: object) -> DriverConnection:
    """Give the driver's connection beneath a caller's connection, session or wrapper.

    A SQLAlchemy connection or session is made to begin its transaction if it has not, as any statement of
    its own would: else its commit would not know of ours.

    Raises:
        UnsupportedOption: There is neither psycopg 3's beneath, nor psycopg2's in Django.
    """
    if isinstance(connection, psycopg.Connection):
        return connection
    if is_async(connection):
        connection = _beneath_async(connection)
    if isinstance(connection, psycopg.AsyncConnection):
        return borrowed(connection)
    if isinstance(connection, Psycopg2Connection):
        return cast("DriverConnection", connection)
    found = _beneath_sqlalchemy(connection) or _beneath_django(connection)
    if isinstance(found, psycopg.Connection):
        return found
    if isinstance(found, Psycopg2Connection):
        return cast("DriverConnection", found)
    kind = type(found if found is not None else connection)
    raise UnsupportedOption(
        f"connection= is a {kind.__module__}.{kind.__qualname__}, which is no connection of psycopg 3.",
        hint="Pass psycopg's connection, SQLAlchemy's connection or session (postgresql+psycopg), or Django's.",
    )


def is_async(connection: object) -> bool:
    """Tell whether a caller's connection belongs to an event loop: psycopg's, or SQLAlchemy's connection or session."""
    if isinstance(connection, psycopg.AsyncConnection):
        return True
    if "sqlalchemy.ext.asyncio" not in sys.modules:
        return False
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

    return isinstance(connection, AsyncConnection | AsyncSession | async_scoped_session)


def _beneath_async(connection: Any) -> object:
    if isinstance(connection, psycopg.AsyncConnection):
        return connection
    on_loop.require()
    if hasattr(connection, "sync_session"):
        connection = connection.sync_session.connection()
    else:
        connection = connection.sync_connection
    if not connection.in_transaction():
        connection.begin()
    found: object = connection.connection.driver_connection
    return found


def cursor_on(
    connection: DriverConnection, row_factory: RowFactory[_Row], *, reads_numbered: bool = False
) -> psycopg.Cursor[_Row]:
    """Give a cursor that works as on a connection of ours, whatever the owner of this one has set up.

    Args:
        connection: As `driver_connection` gives it.
        row_factory: Of psycopg; `tuple_row` or `dict_row`, if it may be psycopg2's.
        reads_numbered: Its statements have `$1` for their values.
    """
    if (other := over_psycopg2(connection)) is not None:
        return cast("psycopg.Cursor[_Row]", other.cursor(row_factory=row_factory))
    kind: Any = psycopg.RawCursor if reads_numbered else psycopg.Cursor
    if schema_of(connection) != PUBLIC:
        kind = speaking(kind)
    cursor: psycopg.Cursor[_Row] = kind(connection, row_factory=row_factory)
    if "django.db" in sys.modules and connection.adapters.get_loader(_JSONB, Format.TEXT) is not JsonbLoader:
        cursor.adapters.register_loader("jsonb", JsonbLoader)
    return cursor


def _beneath_sqlalchemy(connection: object) -> object | None:
    if "sqlalchemy" not in sys.modules:  # then it is none of SQLAlchemy's
        return None
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, scoped_session

    if isinstance(connection, Session | scoped_session):
        connection = connection.connection()
    if not isinstance(connection, Connection):
        return None
    if not connection.in_transaction():
        connection.begin()
    return connection.connection.driver_connection


def _beneath_django(wrapper: object) -> object | None:
    ensure = getattr(wrapper, "ensure_connection", None)
    if ensure is None:
        return None
    ensure()
    found: object = getattr(wrapper, "connection", None)
    return Psycopg2Connection(found) if is_of_psycopg2(found) else found


def default_connection() -> Any:
    """Give Django's default connection, of this thread.

    Raises:
        ConfigurationError: There is no Django with settings in this process.
    """
    conf, db = sys.modules.get("django.conf"), None
    if conf is not None and conf.settings.configured:
        db = import_module("django.db")
    if db is None:
        raise ConfigurationError(
            "No connection is named, and Django, whose default connection would be meant, is not set up here.",
            hint="Pass the connection or session whose transaction it is.",
        )
    return db.connection

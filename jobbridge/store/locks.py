"""Connections that hold an advisory lock for as long as they live: proof that their process does.

Postgres frees the lock when the session ends, however it ends. What could keep the session of a dead process alive,
or end that of a living one, is dealt with here:

- **Forked children** inherit the socket. A child never speaks on it: its copy of the connection is led to /dev/null,
  so that no finalizer says good-bye in its parent's name. With `lasts_in_children` it keeps the bare socket open:
  then the lock is free when the process *and* its children are gone, which is what "nobody works on this any more"
  means for a pool.
- **A host that vanishes** closes nothing: so both sides probe, within seconds.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any, LiteralString, TypeAlias

import psycopg

from jobbridge.errors import DatabaseUnavailable
from jobbridge.store.caller_connection import DriverConnection
from jobbridge.store.database import Database

#: An administrator's idle timeout is not for these; half-open ones end on the server in seconds.
PREPARE: LiteralString = """
SELECT set_config('idle_session_timeout', '0', false),
    set_config('tcp_keepalives_idle', '5', false),
    set_config('tcp_keepalives_interval', '2', false),
    set_config('tcp_keepalives_count', '3', false),
    set_config('tcp_user_timeout', '15000', false)
"""

_OPTIONS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
    "options": "-c TimeZone=UTC",
}

_AnyConnection: TypeAlias = DriverConnection | psycopg.AsyncConnection[Any]

_lasting: weakref.WeakSet[_AnyConnection] = weakref.WeakSet()
_passing: weakref.WeakSet[_AnyConnection] = weakref.WeakSet()
#: A parent's connections, kept so that nothing finalizes them here.
_inherited: list[_AnyConnection] = []


def open_held(database: Database, *, name: str, lasts_in_children: bool = False) -> DriverConnection:
    """Open a connection of its own, in autocommit mode.

    Args:
        database: Where to.
        name: For `pg_stat_activity`.
        lasts_in_children: Its session lives until the last forked child has ended, too.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached.
    """
    conninfo, options = _target(database, name)
    try:
        connection: DriverConnection = psycopg.connect(conninfo, autocommit=True, **options)
        connection.execute(PREPARE)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"{database!r} cannot be used: {str(error).strip()}") from error
    (_lasting if lasts_in_children else _passing).add(connection)
    return connection


async def open_held_async(database: Database, *, name: str) -> psycopg.AsyncConnection[Any]:
    """Open such a connection on the running loop, which ends with this process and whoever opened it closes.

    Raises:
        psycopg.OperationalError: Postgres cannot be reached.
    """
    conninfo, options = _target(database, name)
    connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, **options)
    await connection.execute(PREPARE)
    _passing.add(connection)
    return connection


def _target(database: Database, name: str) -> tuple[str, dict[str, Any]]:
    url = database.url
    options = _OPTIONS | {"application_name": name} | dict(url.query)
    return url.set(drivername="postgresql", query={}).render_as_string(hide_password=False), options


def is_there(connection: DriverConnection) -> bool:
    """Whether the server has not closed the session; asks nobody. What it said unasked is read."""
    if connection.closed:
        return False
    try:
        connection.pgconn.consume_input()
    except psycopg.Error:
        return False
    return connection.pgconn.status == psycopg.pq.ConnStatus.OK


def close_held(connection: DriverConnection) -> None:
    """End its session, and free what it holds."""
    _lasting.discard(connection)
    _passing.discard(connection)
    with contextlib.suppress(psycopg.Error):
        connection.close()


def _let_go_of_inherited() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for connections, keeps_socket in ((_lasting, True), (_passing, False)):
        for connection in list(connections):
            # dup2 and not close: libpq remembers the number, which another file would get next.
            with contextlib.suppress(OSError, psycopg.Error):
                if keeps_socket:
                    os.dup(connection.fileno())
                os.dup2(nothing, connection.fileno(), inheritable=False)
            _inherited.append(connection)
        connections.clear()
    os.close(nothing)


os.register_at_fork(after_in_child=_let_go_of_inherited)

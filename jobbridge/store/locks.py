"""Connections that hold an advisory lock for as long as they live: proof that their process does.

Postgres frees the lock when the session ends, however it ends. What could keep the session of a dead process alive is
dealt with where connections are opened. With `lasts_in_children` a forked child keeps the bare socket open: then the
lock is free when the process *and* its children are gone: nobody works on this any more.
"""

from __future__ import annotations

import psycopg

from jobbridge.postgres.connect import Connection, DriverConnection, close, connect
from jobbridge.store.database import Database

close_held = close


def open_held(database: Database, *, name: str, lasts_in_children: bool = False) -> Connection:
    """Open a connection of its own, in autocommit mode.

    Args:
        database: Where to.
        name: For `pg_stat_activity`.
        lasts_in_children: Its session lives until the last forked child has ended, too.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached.
    """
    purpose = name.removeprefix("jobbridge ")
    return connect(
        database.target, purpose, keeps_session=True, must_write=True, lasts_in_children=lasts_in_children
    )


def is_there(connection: DriverConnection) -> bool:
    """Whether the server has not closed the session; asks nobody. What it said unasked is read."""
    if connection.closed:
        return False
    try:
        connection.pgconn.consume_input()
    except psycopg.Error:
        return False
    return connection.pgconn.status == psycopg.pq.ConnStatus.OK

"""The only place that opens a connection.

Whatever a role, a database or an administrator has set for everybody, a connection from here is the same everywhere:
its session is prepared by one statement (`PREPARE`), not by startup options, which PgBouncer refuses.

- A host that vanishes is noticed by TCP's own means within 20 s, on both sides; a server that is stopped and a proxy
  that has lost it, within 30 s of a statement (`silence`).
- Of several hosts in a URL the primary is taken, unless the URL says otherwise.
- A forked child never speaks on its parent's sockets: its copies are led to /dev/null, so that no finalizer says
  good-bye in the parent's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import weakref
from collections.abc import Mapping
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg.waiting import wait_async

from jobbridge.errors import DatabaseRefused, DatabaseUnavailable
from jobbridge.postgres import on_loop
from jobbridge.postgres.faults import is_refused_at_connect, reason_of
from jobbridge.postgres.names import application_name
from jobbridge.postgres.pooler import shares_sessions
from jobbridge.postgres.schema.names import PUBLIC
from jobbridge.postgres.schema.rendering import speak
from jobbridge.postgres.silence import PROBE_TIMEOUT, attended, is_session_at_work
from jobbridge.postgres.target import Target

#: Seconds, for each host.
CONNECT_TIMEOUT: Final = 10

#: For how long a transaction of ours may say nothing: its steps follow each other at once. A client that vanished
#: behind a proxy which holds the line is seen by nobody else, and its locks would last for ever. Where users' code runs
#: within (`JobContext.transaction`), it may take longer.
IDLE_IN_TRANSACTION: Final = "60s"
#: The same, with users' code between two statements.
IDLE_IN_USERS_TRANSACTION: Final = "1h"

#: Seconds after which who waits on a loop looks whether the server is still there.
_LOOK_EVERY: Final = 0.5
#: libpq's parameters, unless the URL has them. Milliseconds; seconds.
_PARAMETERS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "client_encoding": "UTF8",
}

# One round trip, whatever is set. Behind a pooler the settings end with the statement, for the session is somebody
# else's a moment later; but it follows these two itself. A connection that ends on one side ends on the other.
# transaction_timeout is new in Postgres 17.
PREPARE: LiteralString = """
SELECT pg_backend_pid(),
    current_setting('server_encoding'),
    pg_is_in_recovery(),
    set_config('TimeZone', 'UTC', false),
    set_config('client_encoding', 'UTF8', false),
    set_config('default_transaction_isolation', 'read committed', is_pooled),
    set_config('statement_timeout', '0', is_pooled),
    set_config('lock_timeout', '0', is_pooled),
    set_config('idle_in_transaction_session_timeout', %(idle_in_transaction)s, is_pooled),
    set_config('idle_session_timeout', '0', is_pooled),
    set_config('tcp_keepalives_idle', '5', is_pooled),
    set_config('tcp_keepalives_interval', '2', is_pooled),
    set_config('tcp_keepalives_count', '3', is_pooled),
    set_config('tcp_user_timeout', '15000', is_pooled),
    CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL
        THEN set_config('transaction_timeout', '0', is_pooled)
    END,
    (
        SELECT count(set_config(name, setting, is_pooled))
        FROM unnest(%(names)s::text[], %(values)s::text[]) AS own (name, setting)
    )
FROM (SELECT pg_backend_pid() <> %(backend_pid)s AND NOT %(keeps)s AS is_pooled) AS client
"""

DriverConnection: TypeAlias = "psycopg.Connection[Any]"


class Connection(psycopg.Connection[Any]):
    """psycopg's, which does not wait for ever for a server that is gone."""

    probe: Mapping[str, Any] | None = None
    #: A pooler stands between: nothing may be left in the session.
    is_pooled = False
    #: Its cursors say what is ours for this schema (`schema.rendering.speak`).
    schema = PUBLIC
    #: Its statements wait on the event loop of whoever uses it.
    is_on_loop = False

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        if self.is_on_loop:
            return on_loop.wait(self._waited(_attended(gen, self)))
        return super().wait(_attended(gen, self), *arguments, **named)

    async def _waited(self, gen: Any) -> Any:
        try:
            return await wait_async(gen, self.pgconn.socket, interval=_LOOK_EVERY)
        except asyncio.CancelledError:
            self.pgconn.finish()  # what it waits for may come, or not: nobody reads it
            raise


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """The same, on an event loop."""

    probe: Mapping[str, Any] | None = None
    is_pooled = False
    schema = PUBLIC

    async def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        return await super().wait(_attended(gen, self), *arguments, **named)


_Any: TypeAlias = Connection | AsyncConnection


def connect(
    target: Target,
    purpose: str,
    *,
    settings: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    keeps_session: bool = False,
    must_write: bool = False,
    lasts_in_children: bool = False,
    is_on_loop: bool = False,
) -> Connection:
    """Open a connection in autocommit mode.

    Args:
        target: Where to.
        purpose: For `pg_stat_activity`, after the process's own name: `jobs`, `broker`, `presence`.
        settings: Of Postgres, for the session: own time-outs, planner settings. Left out behind a pooler.
        parameters: Of libpq; they win over those of the URL.
        keeps_session: It LISTENs, or holds locks: pooled by the transaction, it is refused.
        must_write: A standby is of no use.
        lasts_in_children: Its session lives until the last forked child has ended, too.
        is_on_loop: It is for code that runs on an event loop (`on_loop`), and waits there.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached, or is no primary yet. Safe to retry.
        DatabaseRefused: It answers, and waiting will not help: the hint says what to change.
    """
    refuse_eventlet()
    given = _given(target, purpose, parameters)
    try:
        connection = _opened_on_loop(given) if is_on_loop else Connection.connect(**given, autocommit=True)
    except psycopg.Error as error:
        raise explained(error, target) from error
    try:
        _attend(connection, given)
        speak(connection, target.schema)
        row = connection.execute(PREPARE, _prepared(connection, settings)).fetchone()
        _note(connection, row)
        _judge(row, target, must_write=must_write)
        if keeps_session:
            keep(connection, target, settings)
    except BaseException as error:
        connection.close()
        if isinstance(error, psycopg.Error):
            raise explained(error, target) from error
        raise
    (_lasting if lasts_in_children else _passing).add(connection)
    return connection


def _opened_on_loop(given: Mapping[str, Any]) -> Connection:
    opened = on_loop.wait(AsyncConnection.connect(**given, autocommit=True))
    connection = Connection(opened.pgconn)
    del opened.pgconn  # it is the other's now; psycopg looks for it when it finalizes
    connection._autocommit = connection.is_on_loop = True
    return connection


def refuse_eventlet() -> None:
    """Say that eventlet cannot be served, where it has patched this process.

    It takes `select.poll` away, and psycopg knows nothing of its hub: each statement would stop all its threads.

    Raises:
        DatabaseRefused: It has.
    """
    if "eventlet" in sys.modules and not hasattr(select, "poll"):
        raise DatabaseRefused(
            "eventlet has patched this process, and its threads cannot wait for Postgres.",
            hint="Run workers with -P gevent, threads or prefork; have senders patched by gevent, or not at all.",
        )


async def connect_async(
    target: Target,
    purpose: str,
    *,
    settings: Mapping[str, str] | None = None,
    keeps_session: bool = False,
    must_write: bool = False,
) -> AsyncConnection:
    """Open such a connection on the running loop. Arguments and errors as with `connect`."""
    refuse_eventlet()
    given = _given(target, purpose, None)
    try:
        connection = await AsyncConnection.connect(**given, autocommit=True)
    except psycopg.Error as error:
        raise explained(error, target) from error
    try:
        _attend(connection, given)
        speak(connection, target.schema)
        row = await (await connection.execute(PREPARE, _prepared(connection, settings))).fetchone()
        _note(connection, row)
        _judge(row, target, must_write=must_write)
        if connection.is_pooled and keeps_session:
            await asyncio.to_thread(_refuse_shared, connection, target)
            await connection.execute(PREPARE, _prepared(connection, settings, keeps=True))
    except BaseException as error:
        await connection.close()
        if isinstance(error, psycopg.Error):
            raise explained(error, target) from error
        raise
    _passing.add(connection)
    return connection


def keep(connection: Connection, target: Target, settings: Mapping[str, str] | None = None) -> None:
    """Make sure that its session stays this connection's own, for LISTEN and locks.

    Raises:
        DatabaseRefused: A pooler gives it to others between two transactions.
        DatabaseUnavailable: The pooler has no second session to try it with.
        psycopg.Error: It is lost.
    """
    if connection.is_pooled:
        _refuse_shared(connection, target)
        connection.execute(PREPARE, _prepared(connection, settings, keeps=True))


def is_there(connection: DriverConnection) -> bool:
    """Tell whether the server has not closed an idle session; asks nobody. What it said unasked is read."""
    if connection.closed:
        return False
    try:
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        if poller.poll(0):
            connection.pgconn.consume_input()
    except (psycopg.OperationalError, OSError, ValueError):
        return False
    return connection.pgconn.status == psycopg.pq.ConnStatus.OK


def close(connection: DriverConnection) -> None:
    """End its session, and free what it holds."""
    with contextlib.suppress(psycopg.Error):  # it is gone already
        connection.close()


def explained(error: psycopg.Error, target: Target) -> DatabaseUnavailable:
    """Say what waiting cures and what it does not."""
    reason = reason_of(error)
    if not is_refused_at_connect(error):
        return DatabaseUnavailable(f"{target} cannot be used: {reason}")
    hint = "Correct the user or the password in the database URL."
    if "does not exist" in reason or "no such" in reason:
        hint = "Create the database or the role, or correct the database URL."
    return DatabaseRefused(f"{target} cannot be used: {reason}", hint=hint)


def _given(target: Target, purpose: str, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    given = _PARAMETERS | dict(target.parameters) | dict(parameters or {})
    given["application_name"] = application_name(
        purpose, product=given.get("application_name") or "jobbridge"
    )
    if len(target.hosts) > 1:
        given.setdefault("target_session_attrs", "primary")
    return given


def _prepared(connection: _Any, settings: Mapping[str, str] | None, *, keeps: bool = False) -> dict[str, Any]:
    own = settings or {}
    return {
        "idle_in_transaction": IDLE_IN_TRANSACTION,
        "backend_pid": connection.info.backend_pid,
        "keeps": keeps,
        "names": list(own),
        "values": list(own.values()),
    }


def _attend(connection: _Any, given: Mapping[str, Any]) -> None:
    # Who asks for a silent session asks the host that it is at: another one knows nothing of it.
    at = {"host": connection.info.host, "port": connection.info.port}
    connection.probe = {
        **given,
        **at,
        "connect_timeout": PROBE_TIMEOUT,
        "application_name": "jobbridge probe",
    }
    connection.is_pooled = True  # until its number is known


def _note(connection: _Any, row: tuple[Any, ...] | None) -> None:
    assert row is not None
    connection.is_pooled = row[0] != connection.info.backend_pid
    if connection.is_pooled:
        connection.prepare_threshold = None


def _judge(row: tuple[Any, ...] | None, target: Target, *, must_write: bool) -> None:
    assert row is not None
    _, encoding, is_standby, *_ = row
    if encoding != "UTF8":
        raise DatabaseRefused(
            f"{target} is encoded in {encoding}, which does not hold every character.",
            hint="Make a database with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and move to it.",
        )
    if must_write and is_standby:
        raise DatabaseUnavailable(
            f"{target} is a standby, which can only be read.",
            hint="Name the primary, or all hosts of the cluster: postgresql://user@first,second/database.",
        )


def _refuse_shared(connection: _Any, target: Target) -> None:
    try:
        is_shared = shares_sessions(connection.probe or {})
    except psycopg.Error as error:
        raise explained(error, target) from error
    if is_shared:
        raise DatabaseRefused(
            f"{target} is behind a pooler (PgBouncer?) that gives each transaction another session.",
            hint="Workers, beat and the dashboard hold locks and listen: give them a URL of Postgres itself, or of "
            "a pool with pool_mode = session. Who only sends jobs may use this one.",
        )


def _attended(waiting: Any, connection: _Any) -> Any:
    probe = connection.probe
    if probe is None:
        return waiting
    backend_pid, is_pooled = connection.pgconn.backend_pid, connection.is_pooled
    return attended(
        waiting, connection.pgconn, lambda: is_session_at_work(probe, backend_pid, is_pooled=is_pooled)
    )


# -- fork

_lasting: weakref.WeakSet[_Any] = weakref.WeakSet()
_passing: weakref.WeakSet[_Any] = weakref.WeakSet()
#: A parent's connections, kept so that nothing finalizes them here.
_inherited: list[_Any] = []


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

"""One reading of errors: by SQLSTATE and by the state of the connection, never by the text of a message.

| kind | means | for instance |
|---|---|---|
| lost | the connection is gone; whether the statement was done is not known | reset, 57P01, 08006 |
| transient | nothing was done; the same statement may succeed later | 57014, 55P03, 40001, 40P01, 53300, 25006 |
| refused | the data or the grant is wrong: again is in vain, others may pass | 22xxx, 23xxx, 42501, 0A000 |
| wrong | the schema is not what this release knows | 42P01, 42703, 3F000 |

Who meets an error says in a table what it does for each kind; nobody decides by an exception's class.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import psycopg


class Kind(Enum):
    """What an error of Postgres means for whoever asked."""

    LOST = "lost"
    TRANSIENT = "transient"
    REFUSED = "refused"
    WRONG = "wrong"


#: The server ends the session, or will not have one yet: 57P01 administrator, 57P02 crash, 57P03 starting,
#: 57P04 database dropped, 57P05 idle session; 25P03 and 25P04: idle, or too long, in a transaction; 08xxx: protocol.
_LOST = ("57P", "25P03", "25P04", "08")
#: 40 rolled back for others' sake · 53 out of something · 55P03 lock · 55006 in use · 57014 cancelled, or timed out ·
#: 25006 read-only · 25P02 after an error · 58, XX server's own trouble · 0A with a cached plan, see `kind_of`.
_TRANSIENT = ("40", "53", "55P03", "55006", "57014", "25006", "25P02", "58", "XX")
#: No such table, column, function, schema; a parameter's type. 42P05 and 26000 speak of prepared statements.
_WRONG = ("42P01", "42703", "42883", "42704", "42P10", "42804", "42P18", "3F000", "42P05", "26000")

#: Refused while connecting, where libpq keeps the SQLSTATE to itself: see `is_refused_at_connect`.
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "is not permitted to log in",
    "permission denied for database",
    # PgBouncer
    "no such database",
    "no such user",
    "unsupported startup parameter",
)


def kind_of(error: BaseException, connection: psycopg.Connection[Any] | None = None) -> Kind:
    """Tell what an error means.

    Args:
        error: What was raised by a statement, or by connecting.
        connection: Which one it came over, if that is known: what ended it decides.
    """
    if connection is not None and is_gone(connection, error):
        return Kind.LOST
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is None:
        return _without_state(error)
    if state.startswith(_LOST):
        return Kind.LOST
    if state.startswith(_TRANSIENT):
        return Kind.TRANSIENT
    if state.startswith(_WRONG):
        return Kind.WRONG
    return Kind.REFUSED


def is_held_up(error: BaseException | None) -> bool:
    """Tell whether a statement waited in vain for what somebody else has: of many rows, others may be free."""
    return isinstance(error, psycopg.Error) and error.sqlstate in ("55P03", "57014", "40P01")


def is_gone(connection: psycopg.Connection[Any], error: BaseException | None = None) -> bool:
    """Tell whether the connection cannot be used again."""
    if connection.closed:
        return True
    # A reset that psycopg meets while it waits is an error before libpq has noticed: `closed` is false still.
    is_of_the_socket = isinstance(error, psycopg.OperationalError | OSError) and not getattr(
        error, "sqlstate", None
    )
    return is_of_the_socket and is_interrupted(connection)


def is_interrupted(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether an answer is still to come: something ended the wait for it."""
    return connection.info.transaction_status is psycopg.pq.TransactionStatus.ACTIVE


def is_refused_at_connect(error: psycopg.Error) -> bool:
    """Tell whether Postgres answered, and will not have us however often we come: password, role, database.

    libpq reads the SQLSTATE of a failed connection and does not give it out (PQerrorMessage is all there is; psycopg
    3.3 has nothing beside it). So this is the one place that reads a text. A server that speaks another language is
    taken for one that cannot be reached: it is asked again, and the message is shown as it came.
    """
    text = _last_message(error)
    # Also where a socket's file "does not exist": then nobody answered.
    return "FATAL" in text and any(phrase in text for phrase in _REFUSALS)


def has_answered(error: psycopg.Error) -> bool:
    """Tell whether a connection failed because Postgres would not have it, and not for want of a Postgres."""
    pgconn = error.pgconn
    return pgconn is not None and (pgconn.used_password or "FATAL" in _last_message(error))


def reason_of(error: BaseException) -> str:
    """Give the first line of what an error says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _last_message(error: psycopg.Error) -> str:
    # Of several hosts the last one's: another may be down while this one refuses.
    pgconn = error.pgconn
    return pgconn.error_message.decode(errors="replace") if pgconn is not None else str(error)


def _without_state(error: BaseException) -> Kind:
    # Without a SQLSTATE it never came from the server: the socket (OperationalError), a closed connection
    # (InterfaceError), or psycopg itself, which cannot send a value (DataError, ProgrammingError).
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError):
        return Kind.LOST
    return Kind.REFUSED

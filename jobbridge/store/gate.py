"""The gate at the start of an attempt: is the tenant suspended?

It is part of the claim (`transitions.GATE`), so it costs no round trip. What cannot be looked up does not stop a job.
"""

from __future__ import annotations

import logging
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from jobbridge.core.keys import JobKey
from jobbridge.store.callers import DriverConnection
from jobbridge.store.transitions import GATE, SUSPENSION

_log = logging.getLogger(__name__)

#: What Postgres calls the gate's table in an error.
_TABLE = "job_suspensions"


def one_row(
    connection: DriverConnection, statement: LiteralString, params: dict[str, Any]
) -> tuple[Any, ...] | None:
    """Run a statement that returns at most one row; if it fails only for the gate in it, without the gate."""
    try:
        return _one_row(connection, statement, params)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
        if GATE not in statement or not connection.autocommit or _TABLE not in str(error):
            raise
        _log.warning("tenant_suspension_not_read", extra={"error": str(error)})
        return _one_row(connection, statement.replace(GATE, ""), params)


def suspension_of(connection: DriverConnection, job: JobKey) -> str | None:
    """Give the reason for which the tenant's jobs must not run; None if they may."""
    row = _one_row(connection, SUSPENSION, {"tenant": job.tenant})
    return None if row is None else row[0] or "no reason was given"


def _one_row(
    connection: DriverConnection, statement: LiteralString, params: dict[str, Any]
) -> tuple[Any, ...] | None:
    # A caller's connection may make other rows and other cursors.
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        return cursor.execute(statement, params).fetchone()

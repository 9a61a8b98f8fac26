"""The gate at the start of an attempt: is the tenant suspended, or the queue paused?

It is part of the claim (`transitions.GATE`), so it costs no round trip. What cannot be looked up does not stop a job.
"""

from __future__ import annotations

import logging
from typing import Any, LiteralString

import psycopg

from jobbridge.core.keys import JobKey
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.presence import is_let_go
from jobbridge.store.fetch import first_tuple
from jobbridge.store.jobs.transitions import GATE, PAUSE, SUSPENSION

_log = logging.getLogger(__name__)

#: Who runs it now.
HOLDER: LiteralString = """
SELECT worker_number
FROM public.jobs
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND worker_number IS NOT NULL
"""


def one_row(
    connection: DriverConnection, statement: LiteralString, params: dict[str, Any]
) -> tuple[Any, ...] | None:
    """Run a statement that returns at most one row; if a table is missing, or not ours to read, without the gate."""
    try:
        return first_tuple(connection, statement, params)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
        if GATE not in statement or not connection.autocommit:
            raise
        _log.warning("gate_not_read", extra={"error": str(error)})
        return first_tuple(connection, statement.replace(GATE, ""), params)


def suspension_of(connection: DriverConnection, job: JobKey) -> str | None:
    """Give the reason for which the tenant's jobs must not run; None if they may."""
    row = first_tuple(connection, SUSPENSION, {"tenant": job.tenant})
    return None if row is None else row[0] or "no reason was given"


def gone_holder(connection: DriverConnection, job: JobKey) -> list[int]:
    """Give the number of the worker that began the job last, if it is known to be gone."""
    row = first_tuple(connection, HOLDER, {"tenant": job.tenant, "job_id": job.job_id})
    return [row[0]] if row is not None and is_let_go(connection, row[0]) else []


def is_paused(connection: DriverConnection, queue: str) -> bool:
    """Tell whether nothing is to start that waits in this queue."""
    return first_tuple(connection, PAUSE, {"queue": queue}) is not None

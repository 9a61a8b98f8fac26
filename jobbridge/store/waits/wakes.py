"""Sleeps that end before their time. The row is locked by whoever calls, before anything here."""

from __future__ import annotations

from typing import Any, LiteralString

from jobbridge.core.keys import JobKey
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.fetch import tuples
from jobbridge.store.values import json_text

Json = Any  # what json.loads returns

#: What sleeps says in its step until when: the handler that runs again finds that it is over.
END_SLEEPS: LiteralString = """
UPDATE public.job_details
SET metadata = metadata || jsonb_strip_nulls(jsonb_build_object(
        'until', clock_timestamp(), 'planned_until', metadata -> 'until', 'woken_by', %(woken_by)s::text
    )),
    updated_at = clock_timestamp()
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND status = 'scheduled'
  AND metadata ? 'durable' AND metadata ? 'until' AND NOT metadata ? 'superseded'
"""

#: Its message was made due.
QUEUED: LiteralString = """
UPDATE public.jobs
SET status = 'queued', run_at = NULL, updated_at = clock_timestamp()
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND status = 'scheduled'
"""

#: Owed to the relay, which hands its message to the workflow that sleeps.
OWED: LiteralString = """
WITH owed AS (
    UPDATE public.jobs
    SET status = 'pending', run_at = NULL, message = %(message)s, undelivered_since = clock_timestamp(),
        relayed_at = NULL, updated_at = clock_timestamp()
    WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND status = 'scheduled'
    RETURNING job_id
)
SELECT pg_notify('jobbridge_relay', '') FROM owed
"""


def end_sleeps(connection: DriverConnection, job: JobKey, *, woken_by: str | None) -> None:
    """Have what sleeps of a job be over."""
    connection.execute(END_SLEEPS, _params(job) | {"woken_by": woken_by})


def queue(connection: DriverConnection, job: JobKey) -> None:
    """Say of a job that sleeps that a worker may take it."""
    connection.execute(QUEUED, _params(job))


def owe(connection: DriverConnection, job: JobKey, message: Json) -> bool:
    """Have the relay give a job that sleeps this message; False: it does not sleep."""
    return bool(tuples(connection, OWED, _params(job) | {"message": json_text(message)}))


def _params(job: JobKey) -> dict[str, Any]:
    return {"tenant": job.tenant, "job_id": job.job_id}

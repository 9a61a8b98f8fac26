"""The recorded calls of a job: steps in `job_details` whose metadata say which call they record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.durable import CALL, DURABLE, Kind, NewStep
from jobbridge.core.keys import JobKey
from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.fetch import first_tuple, tuples
from jobbridge.store.values import as_jsonb, as_text

Json = Any  # what json.loads returns

#: With the time, which decides what is due: one clock for all workers.
RECORDS: LiteralString = """
SELECT clock_timestamp(), detail_id, status, result, metadata, error
FROM public.job_details
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND metadata ? 'durable' AND NOT metadata ? 'superseded'
ORDER BY sequence
"""

NOW: LiteralString = "SELECT clock_timestamp()"

#: The id comes from the caller, so that a repetition after a lost connection makes no second row. Of a step that there
#: is, the call goes on: it is waited for again, or made again. No columns of the key are named, for in partitions it
#: has one more.
PUT: LiteralString = """
WITH changed AS (
    UPDATE public.job_details AS step
    SET status = %(status)s, retry_count = %(attempt)s, result = %(result)s, error = %(error)s,
        metadata = step.metadata || %(metadata)s::jsonb, updated_at = clock_timestamp(),
        processed_at = CASE WHEN %(is_ended)s::boolean THEN clock_timestamp() END
    WHERE tenant = %(tenant)s AND detail_id = %(detail_id)s AND job_id = %(job_id)s
      AND status NOT IN ('completed', 'failed')
), put AS (
    INSERT INTO public.job_details (
        tenant, detail_id, job_id, step_name, step_key, status, retry_count, result, error, metadata, created_at,
        updated_at, processed_at
    )
    VALUES (
        %(tenant)s, %(detail_id)s, %(job_id)s, %(name)s, %(key)s, %(status)s, %(attempt)s, %(result)s, %(error)s,
        %(metadata)s, clock_timestamp(), clock_timestamp(),
        CASE WHEN %(is_ended)s::boolean THEN clock_timestamp() END
    )
    ON CONFLICT DO NOTHING
)
SELECT status FROM public.jobs WHERE tenant = %(tenant)s AND job_id = %(job_id)s
"""

#: A wait that took too long; not if its event came first.
TIME_OUT: LiteralString = """
UPDATE public.job_details
SET status = 'completed', metadata = metadata || '{"timed_out": true}',
    processed_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE tenant = %(tenant)s AND detail_id = %(detail_id)s AND job_id = %(job_id)s AND status = 'waiting'
"""

#: Of a job that is run again: what failed is made again; and all of it, if it was undone. It stays, for people.
FORGET_FAILED: LiteralString = """
UPDATE public.job_details AS step
SET metadata = step.metadata || jsonb_build_object(
    'superseded', jsonb_build_object('at', clock_timestamp(), 'was', step.status)
)
WHERE step.tenant = %(tenant)s AND step.job_id = %(job_id)s AND step.metadata ? 'durable'
  AND NOT step.metadata ? 'superseded'
  AND (step.status <> 'completed' OR EXISTS (
      SELECT FROM public.job_details AS failure
      WHERE failure.tenant = %(tenant)s AND failure.job_id = %(job_id)s
        AND failure.metadata ->> 'durable' = 'failure' AND NOT failure.metadata ? 'superseded'
  ))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A durable call that was made.

    Attributes:
        call: By what it is known.
        result: As it is stored, perhaps sealed.
    """

    detail_id: UUID
    kind: Kind
    call: str
    status: JobStatus
    result: Json
    metadata: Mapping[str, Json]
    error: str | None


def read(connection: DriverConnection, job: JobKey) -> tuple[datetime, list[Record]]:
    """Give the time, and what is recorded of a job, in the order in which it was made."""
    rows = tuples(connection, RECORDS, _params(job))
    if not rows:
        [(now,)] = tuples(connection, NOW, {})
        return now, []
    known = [
        Record(
            detail_id=detail_id,
            kind=Kind(metadata[DURABLE]),
            call=str(metadata[CALL]),
            status=JobStatus(status),
            result=result,
            metadata=metadata,
            error=error,
        )
        for _, detail_id, status, result, metadata, error in rows
    ]
    return rows[0][0], known


def put(
    connection: DriverConnection, job: JobKey, step: NewStep, *, attempt: int, error: str | None = None
) -> str | None:
    """Write a step of a job; one that has ended stays as it is. Gives the job's status; None: there is no such job."""
    found = first_tuple(
        connection,
        PUT,
        _params(job)
        | {
            "detail_id": step.detail_id,
            "name": step.name,
            "key": step.key,
            "status": step.status.value,
            "attempt": attempt,
            "result": None if step.result is None else as_jsonb(step.result),
            "error": as_text(error),
            "metadata": as_jsonb({**step.metadata, DURABLE: step.kind.value, CALL: step.call}),
            "is_ended": step.status.is_final,
        },
    )
    return None if found is None else str(found[0])


def time_out(connection: DriverConnection, job: JobKey, detail_id: UUID) -> bool:
    """Complete a wait for which nothing came; False: something did."""
    told = {"tenant": job.tenant, "job_id": job.job_id, "detail_id": detail_id}
    return bool(connection.execute(TIME_OUT, told).rowcount)


def forget_failed(connection: DriverConnection, job: JobKey) -> None:
    """Have what a job recorded be made anew as far as it failed; all, if the job was undone."""
    connection.execute(FORGET_FAILED, _params(job))


def _params(job: JobKey) -> dict[str, Any]:
    return {"tenant": job.tenant, "job_id": job.job_id}

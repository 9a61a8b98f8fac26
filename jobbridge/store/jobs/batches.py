"""Starts and ends of many jobs at once: what a worker's parent writes for its pool, in one transaction.

The same rules as one by one (`transitions`, `guards`): a row is moved only if its own guard holds. A job that is left
out of the answer is for the recorder, which finds out why, or makes the row that is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row

from jobbridge.core import events
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.postgres.caller_connection import cursor_on
from jobbridge.postgres.prepared import prepared
from jobbridge.store.jobs.guards import becomes, may
from jobbridge.store.jobs.statements import statement_of
from jobbridge.store.jobs.transitions import (
    ENDED,
    GATE,
    LOST,
    RELAXED,
    REOPENED,
    STEP_OF_MOVED,
    UNLESS_REOPENED,
)
from jobbridge.store.values import json_text

#: Of the session that writes them. The statements read as many entries of the primary key as there are jobs; a plan
#: made while the tables were small must not be kept. And whoever writes for many jobs does not wait for one whose row
#: somebody holds.
SETTINGS: Mapping[str, str] = {
    "lock_timeout": "100ms",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Planned anew, a batch of one would cost twice what it does: 0.5 ms for the plan, 0.3 ms for the work.
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

#: What `jobs` has as the type of its tenants: adopted tables have uuids.
_TENANT_TYPE: LiteralString = """
SELECT format_type(atttypid, NULL)
FROM pg_attribute
WHERE attrelid = 'public.jobs'::regclass AND attname = 'tenant'
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """A job that may run now.

    Attributes:
        attempt: 1-based.
        is_counted: Its end is counted, with others: by the parent of a fan-out, or by a chord.
    """

    attempt: int
    is_counted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How an attempt ended, as the row has it; small, for it travels from a pool's process to its parent.

    Attributes:
        result: JSON text.
    """

    tenant: TenantId
    job_id: UUID
    attempt: int
    delivery: UUID | None
    has_failed: bool
    result: str | None
    result_payload: bytes | None
    result_type: str | None
    error: str | None
    traceback: str | None

    @classmethod
    def of(cls, event: events.Completed | events.Failed) -> Ended:
        """Take what there is to write from an event; of a failed one, its attempt is known."""
        params = statement_of(event)[1]
        result = params["result"]
        assert event.attempt is not None
        return cls(
            tenant=event.key.tenant,
            job_id=event.key.job_id,
            attempt=event.attempt,
            delivery=event.delivery if isinstance(event, events.Failed) else None,
            has_failed=isinstance(event, events.Failed),
            result=None if result is None else json_text(result.obj),
            result_payload=params["result_payload"],
            result_type=params["result_type"],
            error=params.get("error"),
            traceback=params.get("traceback"),
        )


def _of_row(condition: LiteralString, columns: Iterable[str]) -> LiteralString:
    """Have a condition read what differs by job from the row of `told`, where it read a parameter."""
    names = "|".join(columns)
    return re.sub(rf"%\(({names})\)s(?:::\w+)?", r"told.\1", condition)


_STARTED = (
    "tenant",
    "job_id",
    "delivery",
    "queue",
    "redelivered",
    "goes_back",
    "max_attempts",
    "external_id",
)
_HAVE_ENDED = ("attempt", "delivery")

START_MANY: LiteralString = f"""
WITH told AS (
    SELECT *
    FROM json_to_recordset(%(rows)s::json) AS told (
        tenant <tenant>, job_id uuid, delivery uuid, queue text, redelivered boolean, goes_back boolean,
        max_attempts integer, external_id text
    )
), moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Started)},
        attempt = job.attempt + 1,
        delivery = coalesce(told.delivery, job.delivery),
        runner_type = %(engine)s,
        queue = told.queue,
        worker = %(worker)s,
        worker_number = %(worker_number)s,
        max_attempts = coalesce(told.max_attempts, job.max_attempts),
        external_id = coalesce(told.external_id, job.external_id),
        undelivered_since = NULL,
        progress = NULL, progress_message = NULL, error = NULL, traceback = NULL,
        started_at = coalesce(job.started_at, clock_timestamp()),
        updated_at = clock_timestamp()
    FROM told
    WHERE job.tenant = told.tenant AND job.job_id = told.job_id AND {_of_row(may(events.Started), _STARTED)}
        {_of_row(GATE, _STARTED)}
    RETURNING job.tenant, job.job_id, job.attempt, job.parent_id, job.chord_id, job.called_by,
        job.attempt > 1 OR job.started_at < now() AS was_begun
), lost AS (
    UPDATE public.job_details AS step
    SET {LOST}
    FROM moved
    WHERE moved.attempt > 1 AND step.tenant = moved.tenant AND step.job_id = moved.job_id
      AND step.step_name = 'attempt' AND step.retry_count < moved.attempt AND step.status = 'processing'
), {REOPENED.replace("WHERE", "WHERE moved.was_begun AND", 1)}, opened AS (
    INSERT INTO public.job_details
        (tenant, job_id, step_name, status, retry_count, metadata, created_at, updated_at)
    SELECT
        tenant, job_id, 'attempt', 'processing', attempt, %(step_metadata)s::jsonb, clock_timestamp(),
        clock_timestamp()
    FROM moved{UNLESS_REOPENED}
)
SELECT job_id, attempt, chord_id IS NOT NULL OR called_by IS NOT NULL OR parent_id IS NOT NULL AND EXISTS (
    SELECT FROM public.job_family_members AS member
    WHERE member.tenant = moved.tenant AND member.child_id = moved.job_id
)
FROM moved
"""  # put together from constants

_TOLD_ENDS: LiteralString = """
WITH told AS (
    SELECT *
    FROM json_to_recordset(%(rows)s::json) AS told (
        tenant <tenant>, job_id uuid, attempt integer, delivery uuid, result text, result_payload bytea,
        result_type text, error text, traceback text
    )
)"""

_THESE: LiteralString = "job.tenant = told.tenant AND job.job_id = told.job_id"

COMPLETE_MANY: LiteralString = f"""{_TOLD_ENDS}, moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Completed)}, result = told.result::jsonb, result_payload = told.result_payload,
        result_type = told.result_type, error = NULL, traceback = NULL, progress = 100, {ENDED}
    FROM told
    WHERE {_THESE} AND {_of_row(may(events.Completed), _HAVE_ENDED)}
    RETURNING job.tenant, job.job_id, job.attempt
), closed AS (
    UPDATE public.job_details AS step
    SET status = 'completed', processed_at = clock_timestamp(), updated_at = clock_timestamp(){STEP_OF_MOVED}
)
SELECT job_id FROM moved
"""

FAIL_MANY: LiteralString = f"""{_TOLD_ENDS}, moved AS (
    UPDATE public.jobs AS job
    SET status = {becomes(events.Failed)}, unsuccessful = 'failed',
        result = told.result::jsonb, result_payload = told.result_payload, result_type = told.result_type,
        error = told.error, traceback = told.traceback, {ENDED}
    FROM told
    WHERE {_THESE} AND {_of_row(may(events.Failed), _HAVE_ENDED)}
    RETURNING job.tenant, job.job_id, job.attempt, told.error, told.traceback
), closed AS (
    UPDATE public.job_details AS step
    SET status = 'failed', error = moved.error, traceback = moved.traceback,
        processed_at = clock_timestamp(), updated_at = clock_timestamp(){STEP_OF_MOVED}
)
SELECT job_id FROM moved
"""


#: What the relay has handed over, by its own connection. A tenant is compared as text: rows are found by the job's id.
ACCEPT_MANY: LiteralString = f"""
WITH told AS (
    SELECT *
    FROM unnest(
        %(tenant)s::text[], %(job_id)s::uuid[], %(delivery)s::uuid[], %(external_id)s::text[],
        %(external_run_id)s::text[]
    ) AS told (tenant, job_id, delivery, external_id, external_run_id)
)
UPDATE public.jobs AS job
SET status = {becomes(events.Accepted)},
    runner_type = %(engine)s,
    external_id = told.external_id,
    external_run_id = coalesce(told.external_run_id, job.external_run_id),
    undelivered_since = NULL,
    updated_at = clock_timestamp()
FROM told
WHERE job.job_id = told.job_id AND job.tenant::text = told.tenant AND {_of_row(may(events.Accepted), ("delivery",))}
  AND {RELAXED}
RETURNING job.job_id
"""


def params_of_accepted(accepted: Sequence[events.Accepted]) -> dict[str, Any]:
    """Give the parameters of ACCEPT_MANY; all are of one engine."""
    names = ("delivery", "external_id", "external_run_id")
    return {name: [getattr(each, name) for each in accepted] for name in names} | {
        "tenant": [each.key.tenant for each in accepted],
        "job_id": [each.key.job_id for each in accepted],
        "engine": accepted[0].engine.value,
    }


class Batches:
    """Writes starts and ends together on one connection.

    Args:
        connection: In autocommit mode, with SETTINGS.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        with cursor_on(connection, tuple_row) as cursor:
            (self._tenant,) = cursor.execute(_TENANT_TYPE).fetchone() or ("text",)

    def write(
        self, ends: Sequence[Ended], starts: Sequence[events.Started]
    ) -> tuple[set[UUID], dict[UUID, Begun]]:
        """Write ends, then starts, in one transaction and one round trip.

        Args:
            ends: Of different jobs.
            starts: Of different jobs, by one worker, of one engine.

        Returns:
            Which have ended by it, and which may run. The others' rows did not allow it, or there is none.

        Raises:
            psycopg.Error: Nothing was written, or, where the connection is lost, perhaps all.
        """
        completed = [each for each in ends if not each.has_failed]
        failed = [each for each in ends if each.has_failed]
        asked: list[tuple[LiteralString, dict[str, Any]]] = []
        if completed:
            asked.append((COMPLETE_MANY, params_of_ends(completed)))
        if failed:
            asked.append((FAIL_MANY, params_of_ends(failed)))
        if starts:
            asked.append((START_MANY, params_of_starts(starts)))
        # psycopg's pipeline costs as much as a small statement.
        with self._connection.pipeline() if len(asked) > 1 else nullcontext():
            answers = [self._run(*each) for each in asked]
        begun = answers.pop() if starts else ()
        done = {row[0] for answer in answers for row in answer}
        return done, {row[0]: Begun(attempt=row[1], is_counted=row[2]) for row in begun}

    def _run(self, statement: LiteralString, params: dict[str, Any]) -> psycopg.RawCursor[tuple[Any, ...]]:
        return prepared(for_tenants_of(statement, self._tenant)).cursor(
            self._connection, params, prepare=True
        )


@cache
def for_tenants_of(statement: LiteralString, tenant_type: LiteralString) -> LiteralString:
    """Have a statement of this module fit tables whose tenants are of this type: `text`, or `uuid` if adopted."""
    return statement.replace("<tenant>", tenant_type)


def params_of_ends(ends: Sequence[Ended]) -> dict[str, Any]:
    """Give the parameters of COMPLETE_MANY and FAIL_MANY."""
    rows = [
        {
            "tenant": each.tenant,
            "job_id": str(each.job_id),
            "attempt": each.attempt,
            "delivery": _text(each.delivery),
            "result": each.result,
            "result_payload": None if each.result_payload is None else f"\\x{each.result_payload.hex()}",
            "result_type": each.result_type,
            "error": each.error,
            "traceback": each.traceback,
        }
        for each in ends
    ]
    return {"rows": _document(rows), "waiting_at": None}  # an attempt has ended, and not a job that waits


def params_of_starts(starts: Sequence[events.Started]) -> dict[str, Any]:
    """Give the parameters of START_MANY."""
    first = starts[0]
    rows = [
        {
            "tenant": each.key.tenant,
            "job_id": str(each.key.job_id),
            "delivery": _text(each.delivery),
            "queue": each.queue,
            "redelivered": each.redelivered,
            "goes_back": each.goes_back,
            "max_attempts": each.max_attempts,
            "external_id": each.external_id,
        }
        for each in starts
    ]
    return {
        "rows": _document(rows),
        "engine": first.engine.value,
        "worker": first.worker,
        "worker_number": first.worker_number,
        "gone": [],
        "step_metadata": _document({"worker": first.worker, "engine": first.engine.value}),
    }


def _document(value: object) -> str:
    # As one parameter: to write an array of each column takes psycopg twice as long. Not in escapes of ASCII, which a
    # database of another encoding than UTF-8 would have to translate.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def event_of(ended: Ended) -> events.Completed | events.Failed:
    """Give the event again, for the recorder."""
    key = JobKey(tenant=ended.tenant, job_id=ended.job_id)
    result = None if ended.result is None else json.loads(ended.result)
    if not ended.has_failed:
        return events.Completed(
            key=key,
            attempt=ended.attempt,
            result=result,
            result_payload=ended.result_payload,
            result_type=ended.result_type,
        )
    return events.Failed(
        key=key,
        attempt=ended.attempt,
        delivery=ended.delivery,
        error=ended.error or "",
        traceback=ended.traceback,
        result=result,
        result_payload=ended.result_payload,
        result_type=ended.result_type,
    )

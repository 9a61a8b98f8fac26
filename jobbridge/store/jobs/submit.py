"""The statements that make jobs: one at a time, or many, and with their messages where those are in the same database.

Many go as one JSON document, so that the table itself says what their types are. Only jobs of which there is no row
yet: what is there already stays as it is, and is told by its absence from the answer. Those are submitted one by one
(`SUBMIT`), which knows what may be sent again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, LiteralString

from jobbridge.core import events
from jobbridge.core.events import Submitted
from jobbridge.core.status import JobStatus
from jobbridge.store.jobs.guards import becomes, may
from jobbridge.store.jobs.transitions import STEP_OF_MOVED
from jobbridge.store.statuses import FINAL_STATUSES
from jobbridge.store.values import json_text

#: An INSERT that becomes an UPDATE of the three kinds of rows that may be sent (again). `xmax = 0`: it was inserted.
#: Only a row left by Replaced has begun (started_at) and ended in neither way, which tells `adopted` from `restarted`.
_SUBMITTED: LiteralString = f"""moved AS (
    INSERT INTO public.jobs AS job (
        tenant, job_id, task_id, type, status, metadata, user_id, runner_type, external_id, queue, priority,
        run_at, expires_at, singleton_key, root_id, parent_id, group_id, delivery, message, broker, undelivered_since,
        attempt, max_attempts, created_at, updated_at, chord_id, chord_index
    )
    VALUES (
        %(tenant)s, %(job_id)s, %(task_id)s, %(type)s,
        CASE WHEN %(status)s::text NOT IN ('queued', 'scheduled') THEN %(status)s::text
             WHEN %(run_at)s::timestamptz > now() THEN 'scheduled'
             ELSE 'queued' END,
        %(metadata)s, %(user_id)s, %(engine)s, %(external_id)s, %(queue)s, %(priority)s,
        %(run_at)s::timestamptz, %(expires_at)s, %(singleton_key)s, %(root_id)s, %(parent_id)s, %(group_id)s,
        %(delivery)s, %(message)s, %(broker)s, CASE WHEN %(message)s::text IS NOT NULL THEN clock_timestamp() END,
        coalesce(%(continues)s::integer, 0), %(max_attempts)s, clock_timestamp(), clock_timestamp(),
        %(chord_id)s, %(chord_index)s
    )
    ON CONFLICT (tenant, job_id) DO UPDATE SET
        task_id = excluded.task_id,
        type = excluded.type,
        status = {becomes(events.Submitted)},
        metadata = CASE WHEN job.status IN ({FINAL_STATUSES}) THEN excluded.metadata
                        ELSE job.metadata || excluded.metadata END,
        user_id = coalesce(excluded.user_id, job.user_id),
        runner_type = excluded.runner_type,
        external_id = coalesce(excluded.external_id, job.external_id),
        queue = excluded.queue,
        priority = excluded.priority,
        run_at = excluded.run_at,
        expires_at = excluded.expires_at,
        singleton_key = CASE WHEN job.status IN ({FINAL_STATUSES}) THEN excluded.singleton_key
                             ELSE job.singleton_key END,
        root_id = coalesce(excluded.root_id, job.root_id),
        parent_id = coalesce(excluded.parent_id, job.parent_id),
        group_id = coalesce(excluded.group_id, job.group_id),
        chord_id = excluded.chord_id,
        chord_index = excluded.chord_index,
        delivery = excluded.delivery,
        message = excluded.message,
        broker = excluded.broker,
        undelivered_since = excluded.undelivered_since,
        relayed_at = NULL,
        max_attempts = coalesce(excluded.max_attempts, job.max_attempts),
        progress = NULL, progress_message = NULL,
        result = NULL, result_payload = NULL, result_type = NULL, error = NULL, traceback = NULL,
        cancelled_by = NULL, cancel_reason = NULL, completed_at = NULL, unsuccessful = NULL,
        started_at = CASE WHEN job.status IN ({FINAL_STATUSES}) THEN NULL ELSE job.started_at END,
        updated_at = clock_timestamp()
    WHERE {may(events.Submitted)}
    RETURNING job.tenant, job.job_id, job.status, job.attempt, job.started_at, job.xmax = 0 AS is_new
), replaced AS (
    UPDATE public.job_details AS step
    SET status = 'completed', metadata = step.metadata || '{{"replaced": true}}',
        processed_at = clock_timestamp(), updated_at = clock_timestamp(){STEP_OF_MOVED}
      AND NOT %(is_retry)s::boolean
)"""

_SUBMITTED_AS: LiteralString = """
SELECT status, attempt,
    CASE WHEN is_new THEN 'created'
         WHEN started_at IS NULL THEN 'restarted'
         WHEN %(continues)s::integer IS NOT NULL THEN 'continued'
         ELSE 'adopted' END,
    CASE WHEN %(message)s::text IS NOT NULL THEN pg_notify('jobbridge_relay', '') END"""

SUBMIT: LiteralString = f"WITH {_SUBMITTED}{_SUBMITTED_AS}\nFROM moved\n"


@cache
def submit_with(put: LiteralString, told: LiteralString) -> LiteralString:
    """Give SUBMIT with the job's message stored in the same statement: refused, it stores none.

    Args:
        put: The CTE `put`, which stores a message for each row of `moved`.
        told: What is selected from `put`, to wake who waits for it.
    """
    return f"WITH {_SUBMITTED}, {put}{_SUBMITTED_AS},\n    (SELECT {told} FROM put)\nFROM moved\n"


#: A job that is new, as most are; of one that there is already nothing comes of it, and SUBMIT knows more.
_NEW: LiteralString = """moved AS (
    INSERT INTO public.jobs AS job (
        tenant, job_id, task_id, type, status, metadata, user_id, runner_type, external_id, queue, priority,
        run_at, expires_at, root_id, parent_id, group_id, delivery, attempt, max_attempts, created_at, updated_at,
        chord_id, chord_index
    )
    VALUES (
        %(tenant)s, %(job_id)s, %(task_id)s, %(type)s,
        CASE WHEN %(run_at)s::timestamptz > now() THEN 'scheduled' ELSE 'queued' END,
        %(metadata)s, %(user_id)s, %(engine)s, %(external_id)s, %(queue)s, %(priority)s,
        %(run_at)s::timestamptz, %(expires_at)s, %(root_id)s, %(parent_id)s, %(group_id)s,
        %(delivery)s, 0, %(max_attempts)s, clock_timestamp(), clock_timestamp(),
        %(chord_id)s, %(chord_index)s
    )
    <conflict>RETURNING status, attempt
)"""


@cache
def insert_with(put: LiteralString, told: LiteralString, *, is_new: bool) -> LiteralString:
    """Give the statement for a new job with its message, as `submit_with`; no row: there is such a job.

    `is_new`: there is none, so that it need not be proven by a second record in the log; else UniqueViolation.
    """
    new = _NEW.replace("<conflict>", "" if is_new else "ON CONFLICT (tenant, job_id) DO NOTHING\n    ")
    return f"WITH {new}, {put}\nSELECT status, attempt, 'created', (SELECT {told} FROM put) FROM moved\n"


def is_plainly_new(event: Submitted) -> bool:
    """Whether `insert_with` knows all that the event says."""
    return (
        event.continues is None
        and event.message is None
        and event.broker is None
        and event.singleton_key is None
        and event.status in (JobStatus.QUEUED, JobStatus.SCHEDULED)
    )


_INSERTED: LiteralString = """moved AS (
    INSERT INTO public.jobs AS job (
        tenant, job_id, task_id, type, status, metadata, user_id, runner_type, external_id, queue, priority,
        run_at, expires_at, root_id, parent_id, group_id, chord_id, chord_index, delivery, message, undelivered_since,
        attempt, max_attempts, created_at, updated_at
    )
    SELECT
        tenant, job_id, task_id, type,
        CASE WHEN status NOT IN ('queued', 'scheduled') THEN status
             WHEN run_at > now() THEN 'scheduled'
             ELSE 'queued' END,
        metadata, user_id, runner_type, external_id, queue, priority,
        run_at, expires_at, root_id, parent_id, group_id, chord_id, chord_index, delivery, message,
        CASE WHEN message IS NOT NULL THEN clock_timestamp() END,
        0, max_attempts, clock_timestamp(), clock_timestamp()
    FROM json_populate_recordset(NULL::public.jobs, %(rows)s::json)
    ON CONFLICT (tenant, job_id) DO NOTHING
    RETURNING job.job_id
)"""

#: Jobs whose message is in the row: the relay is woken once.
SUBMIT_MANY: LiteralString = f"""WITH {_INSERTED}
SELECT job_id, CASE WHEN row_number() OVER () = 1 THEN pg_notify('jobbridge_relay', '') END FROM moved
"""


@cache
def submit_many_with(put: LiteralString, told: LiteralString) -> LiteralString:
    """Give the statement with the jobs' messages stored by it.

    Args:
        put: The CTE `put`, which stores the message of each `job_id` of `moved`.
        told: What is selected from `put`, once, to wake who waits for it.
    """
    return f"WITH {_INSERTED}, {put}\nSELECT job_id, (SELECT {told} FROM put) FROM moved\n"


def rows_of(submitted: Sequence[Submitted]) -> str:
    """Write the rows as the document that the statements take."""
    return json_text([_row_of(event) for event in submitted])


def _row_of(event: Submitted) -> dict[str, Any]:
    message = event.message
    return {
        "tenant": event.key.tenant,
        "job_id": event.key.job_id,
        "task_id": event.task_id,
        "type": event.type,
        "status": event.status.value,
        "metadata": event.metadata,
        "user_id": event.user_id,
        "runner_type": event.engine.value,
        "external_id": event.external_id,
        "queue": event.queue,
        "priority": event.priority,
        "run_at": event.run_at,
        "expires_at": event.expires_at,
        "root_id": event.root_id,
        "parent_id": event.parent_id,
        "group_id": event.group_id,
        "chord_id": event.chord_id,
        "chord_index": event.chord_index,
        "delivery": event.delivery,
        "message": None if message is None else json.dumps(message, separators=(",", ":")),
        "max_attempts": event.max_attempts,
    }

"""The statements that make jobs: one at a time, or many, and with their messages where those are in the same database.

Many go as one JSON document, so that the table itself says what their types are. Only jobs of which there is no row
yet: what is there already stays as it is, and is told by its absence from the answer. Those are submitted one by one
(`SUBMIT`), which knows what may be sent again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, LiteralString

from psycopg.errors import UniqueViolation

from jobbridge.core import events
from jobbridge.core.events import Submitted
from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.prepared import prepared
from jobbridge.store.jobs.guards import becomes, may
from jobbridge.store.jobs.transitions import STEP_OF_MOVED
from jobbridge.store.statuses import FINAL_STATUSES
from jobbridge.store.values import json_text

#: Of an attempt that is suspended, the row's number was put back.
_STEP_OF_SENDER = STEP_OF_MOVED.replace("= moved.attempt", "= moved.attempt + %(suspends)s::integer")

#: An INSERT that becomes an UPDATE of the three kinds of rows that may be sent (again). What was inserted was changed
#: when it was made, what was updated later than that: Postgres does not give the `xmax` of a row in a partition here.
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
        %(delivery)s, %(message)s, %(broker)s,
        CASE WHEN %(message)s::text IS NOT NULL AND %(broker)s::text IS NULL THEN clock_timestamp() END,
        coalesce(%(continues)s::integer, 0), %(max_attempts)s, statement_timestamp(), statement_timestamp(),
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
        attempt = job.attempt - %(suspends)s::integer,
        max_attempts = coalesce(excluded.max_attempts, job.max_attempts),
        progress = NULL, progress_message = NULL,
        result = NULL, result_payload = NULL, result_type = NULL, error = NULL, traceback = NULL,
        cancelled_by = NULL, cancel_reason = NULL, completed_at = NULL, unsuccessful = NULL,
        started_at = CASE WHEN job.status IN ({FINAL_STATUSES}) THEN NULL ELSE job.started_at END,
        updated_at = greatest(clock_timestamp(), job.created_at + interval '1 microsecond')
    WHERE {may(events.Submitted)}
    RETURNING job.tenant, job.job_id, job.status, job.attempt, job.started_at,
        job.updated_at = job.created_at AS is_new
), replaced AS (
    UPDATE public.job_details AS step
    SET status = CASE WHEN %(suspends)s::integer = 1 THEN moved.status ELSE 'completed' END,
        metadata = step.metadata || CASE WHEN %(suspends)s::integer = 1 THEN '{{"suspended": true}}'::jsonb
                                         ELSE '{{"replaced": true}}' END,
        processed_at = CASE WHEN %(suspends)s::integer = 0 THEN clock_timestamp() END,
        updated_at = clock_timestamp(){_STEP_OF_SENDER}
      AND NOT %(is_retry)s::boolean
)"""

_SUBMITTED_AS: LiteralString = """
SELECT status, attempt,
    CASE WHEN is_new THEN 'created'
         WHEN started_at IS NULL THEN 'restarted'
         WHEN %(continues)s::integer IS NOT NULL THEN 'continued'
         ELSE 'adopted' END,
    CASE WHEN %(message)s::text IS NOT NULL AND %(is_relayed)s::boolean THEN pg_notify('jobbridge_relay', '') END"""

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


_UNLESS_THERE: LiteralString = "ON CONFLICT (tenant, job_id) DO NOTHING\n    "


@cache
def insert_with(put: LiteralString, told: LiteralString, *, is_new: bool) -> LiteralString:
    """Give the statement for a new job with its message, as `submit_with`; no row: there is such a job.

    `is_new`: there is none, so that it need not be proven by a second record in the log; else UniqueViolation.
    """
    new = _NEW.replace("<conflict>", "" if is_new else _UNLESS_THERE)
    return f"WITH {new}, {put}\nSELECT status, attempt, 'created', (SELECT {told} FROM put) FROM moved\n"


#: The same of those that most are: due now, by nobody's account, known to their engine by their own id. Fewer values
#: are less to write, to read and to plan.
_PLAIN: LiteralString = """moved AS (
    INSERT INTO public.jobs AS job (
        tenant, job_id, task_id, type, status, metadata, runner_type, external_id, queue, priority,
        root_id, parent_id, group_id, delivery, attempt, max_attempts, created_at, updated_at
    )
    VALUES (
        %(tenant)s, %(job_id)s, %(task_id)s, %(type)s, 'queued', %(metadata)s, %(engine)s, %(task_id)s, %(queue)s,
        %(priority)s, %(root_id)s, %(parent_id)s, %(group_id)s, %(delivery)s, 0, %(max_attempts)s,
        clock_timestamp(), clock_timestamp()
    )
    <conflict>RETURNING status
)"""
_TIMELESS = ("run_at", "expires_at", "user_id", "chord_id", "chord_index")


@cache
def insert_plain_with(last: LiteralString, *, is_new: bool) -> LiteralString:
    """Give the statement for a plain job with its message; a row: both are there. `is_new`: as `insert_with`.

    Args:
        last: Stores a message for each row of `moved`; the last part of the statement.
    """
    return f"WITH {_PLAIN.replace('<conflict>', '' if is_new else _UNLESS_THERE)}\n{last}\n"


def new_with(
    event: Submitted, put: LiteralString, told: LiteralString, last: LiteralString | None, *, is_new: bool
) -> LiteralString:
    """Give the statement for what is plainly new: `insert_plain_with` if that knows all of it, or `insert_with`."""
    if last is not None and _is_plain(event):
        return insert_plain_with(last, is_new=is_new)
    return insert_with(put, told, is_new=is_new)


def _is_plain(event: Submitted) -> bool:
    return event.external_id == event.task_id and all(getattr(event, name) is None for name in _TIMELESS)


def is_plainly_new(event: Submitted) -> bool:
    """Whether `insert_with` knows all that the event says."""
    return (
        event.continues is None
        and event.message is None
        and event.broker is None
        and event.singleton_key is None
        and event.status in (JobStatus.QUEUED, JobStatus.SCHEDULED)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainJob:
    """A plain new job of one that sends many such: its event is made when it must.

    Attributes:
        params: Of the statements for new jobs, and of its message.
        is_new: Nobody can know the job's id yet.
        made: Gives the event.
    """

    params: dict[str, Any]
    is_new: bool
    made: Callable[[], Submitted]


def insert_plain(connection: DriverConnection, job: PlainJob, last: LiteralString | None) -> bool:
    """Make a plain job with its message; False: there is such a job.

    Args:
        connection: In autocommit mode.
        job: Which.
        last: As `insert_plain_with`; None: its message has times, after all.
    """
    if last is None:
        return False
    statement = prepared(insert_plain_with(last, is_new=job.is_new))
    try:
        return bool(statement.tuples(connection, job.params, prepare=True))
    except UniqueViolation:
        return False


def insert_first(
    connection: DriverConnection, new: LiteralString, known: LiteralString, params: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Run the statement for jobs that are new; if one is not, that for jobs that may be there.

    Args:
        connection: In autocommit mode.
        new: Refused as a whole if there is one of the jobs.
        known: Leaves that out.
        params: Of both.
    """
    try:
        return prepared(new).tuples(connection, params, prepare=True)
    except UniqueViolation:
        return prepared(known).tuples(connection, params, prepare=True)


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

#: The same of plain ones (`insert_plain_with`), for less: what many have in common is told once, as rows of the table
#: itself whose `attempt` is their number, and the rest as lists of texts, which no control character is part of. ''
#: is null.
_COLUMNS = ("kind", "job_id", "root_id", "parent_id", "group_id", "delivery", "metadata")
_LISTS: LiteralString = ", ".join(f"string_to_array(%(row_{name})s::text, E'\\x1f', '')" for name in _COLUMNS)
_INSERTED_PLAIN: LiteralString = f"""moved AS (
    INSERT INTO public.jobs AS job (
        tenant, job_id, task_id, type, status, metadata, runner_type, external_id, queue, priority,
        root_id, parent_id, group_id, delivery, attempt, max_attempts, created_at, updated_at
    )
    SELECT
        kind.tenant, given.job_id::uuid, given.job_id, kind.type, 'queued', given.metadata::jsonb, kind.runner_type,
        given.job_id, kind.queue, kind.priority, given.root_id::uuid, given.parent_id::uuid, given.group_id,
        given.delivery::uuid, 0, kind.max_attempts, clock_timestamp(), clock_timestamp()
    FROM unnest({_LISTS}) WITH ORDINALITY AS given ({", ".join(_COLUMNS)}, number)
    JOIN json_populate_recordset(NULL::public.jobs, %(row_kinds)s::json) AS kind ON kind.attempt = given.kind::integer
    ORDER BY given.number
    <conflict>RETURNING job.job_id
)"""  # put together from the constants above


@cache
def submit_many_plain_with(put: LiteralString, told: LiteralString) -> tuple[LiteralString, LiteralString]:
    """Give the statements for plain jobs with their messages, as `submit_many_with`: if all are new, and if not."""
    rest = f", {put}\nSELECT job_id, (SELECT {told} FROM put) FROM moved\n"
    new, known = (_INSERTED_PLAIN.replace("<conflict>", conflict) for conflict in ("", _UNLESS_THERE))
    return f"WITH {new}{rest}", f"WITH {known}{rest}"


def columns_of(plain: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Write the rows of plain jobs as `submit_many_plain_with` takes them.

    Args:
        plain: Of each the parameters of `insert_plain_with`; its metadata is text.
    """
    kinds: dict[tuple[Any, ...], int] = {}
    numbers = [
        str(kinds.setdefault(kind, len(kinds)))
        for kind in map(itemgetter("tenant", "type", "engine", "queue", "priority", "max_attempts"), plain)
    ]
    names = ("tenant", "type", "runner_type", "queue", "priority", "max_attempts", "attempt")
    return {
        "row_kinds": json.dumps(
            [dict(zip(names, (*kind, number), strict=True)) for kind, number in kinds.items()]
        ),
        "row_kind": "\x1f".join(numbers),
        "row_job_id": "\x1f".join([job["task_id"] for job in plain]),
        "row_root_id": "\x1f".join([str(job["root_id"] or "") for job in plain]),
        "row_parent_id": "\x1f".join([str(job["parent_id"] or "") for job in plain]),
        "row_group_id": "\x1f".join([job["group_id"] or "" for job in plain]),
        "row_delivery": "\x1f".join([str(job["delivery"]) for job in plain]),
        "row_metadata": "\x1f".join([job["metadata"] for job in plain]),
    }


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

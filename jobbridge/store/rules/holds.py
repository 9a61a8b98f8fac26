"""What holds a job: a row for each of its rules, in the transaction that makes the job.

What if the process dies between two steps? All are in one transaction: the job's row, its message (which waits for no
time that will come), its holds, and, as it commits, the decision. Whoever ends a job decides likewise who comes next.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.keys import JobKey
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows, first_tuple, tuples

#: Of a job that was sent again: what it had goes. Its message of then does not come any more.
FORGET: LiteralString = "DELETE FROM public.job_holds WHERE job_id = %(job_id)s AND tenant = %(tenant)s"

#: The first rule of a job that is due has it at once, the others when their turn comes. What is for the relay is kept
#: from it. One that is due later stands in line then: by its message, or by what the relay is told; unless that is so
#: soon that its message might be written too late to wait.
HOLD: LiteralString = """
WITH ruled AS (
    UPDATE public.jobs
    SET is_ruled = true, undelivered_since = NULL
    WHERE job_id = %(job_id)s AND tenant = %(tenant)s
    RETURNING tenant, job_id, run_at, message IS NOT NULL AS is_relayed,
        coalesce(run_at > clock_timestamp() + interval '1 second', false) AS is_later
), held AS (
    INSERT INTO public.job_holds (
        tenant, job_id, rule, rank, task_id, state, priority, place, kind, allowed, period, is_fair, slot_at,
        due_at
    )
    SELECT ruled.tenant, ruled.job_id, told.rule, told.rank, %(task_id)s,
        CASE WHEN told.is_first AND NOT ruled.is_later THEN 'waiting' ELSE 'later' END,
        CASE WHEN told.ageing IS NULL THEN %(priority)s::smallint ELSE 0 END,
        CASE WHEN told.is_fair THEN NULL
            WHEN told.ageing IS NULL THEN 0
            ELSE extract(epoch FROM clock_timestamp()) - %(priority)s::smallint * told.ageing END,
        told.kind, told.allowed, told.period * interval '1 second', told.is_fair,
        CASE WHEN NOT ruled.is_later THEN ruled.run_at END,
        CASE WHEN ruled.is_later AND ruled.is_relayed AND told.is_first THEN ruled.run_at END
    FROM ruled
    CROSS JOIN json_to_recordset(%(rules)s::json) AS told (
        rule text, rank smallint, kind text, allowed integer, period float, is_fair boolean, ageing float,
        is_first boolean
    )
)
SELECT is_later,
    CASE WHEN is_later AND is_relayed THEN pg_notify('jobbridge_relay', 'due ' || extract(epoch FROM run_at)) END
FROM ruled
"""

#: What is due stands in line.
COME_DUE: LiteralString = """
UPDATE public.job_holds SET state = 'waiting' WHERE state = 'later' AND due_at <= clock_timestamp()
"""

#: By the id that its message has. A trigger looks at the message when it comes due.
MARK_MESSAGE: LiteralString = """
UPDATE jobbridge_broker.messages
SET is_ruled = true
WHERE correlation_id = %(task_id)s AND leased_by IS NULL AND due_at IS NOT NULL
"""

#: Of jobs that went to the broker from elsewhere, those that are held, and whether they stand in line: they still do.
STILL_HELD: LiteralString = """
SELECT task_id, bool_or(state IN ('waiting', 'passed'))
FROM public.job_holds
WHERE job_id = ANY(%(job_ids)s)
GROUP BY task_id
HAVING bool_or(state <> 'running')
"""
HOLD_MESSAGES: LiteralString = """
UPDATE jobbridge_broker.messages AS message
SET due_at = CASE WHEN held.stands_in_line THEN 'infinity' ELSE message.due_at END, is_ruled = true
FROM unnest(%(task_ids)s::text[], %(stand_in_line)s::boolean[]) AS held (task_id, stands_in_line)
WHERE message.correlation_id = held.task_id AND message.leased_by IS NULL
"""

DUE_BY_MESSAGE: LiteralString = """
UPDATE public.job_holds SET due_at = NULL WHERE job_id = ANY(%(job_ids)s) AND due_at IS NOT NULL
"""

#: This release works on tables that are older than the rules.
IS_THERE: LiteralString = "SELECT to_regclass('public.job_holds') IS NOT NULL"

#: What a job waits for, and how many are before it; at most 10,000.
HOLDING: LiteralString = """
SELECT hold.rule, hold.state, hold.kind, known.allowed, known.period, hold.slot_at, hold.held_at,
    (SELECT count(*) FROM public.job_holds AS running
     WHERE running.rule = hold.rule AND running.state = 'running') AS running,
    (SELECT count(*) FROM (
        SELECT FROM public.job_holds AS other
        WHERE other.rule = hold.rule AND other.state = 'waiting'
            AND (other.priority > hold.priority OR other.priority = hold.priority
                AND (other.place, other.sequence) < (hold.place, hold.sequence))
        LIMIT 10000
    ) AS before) AS ahead
FROM public.job_holds AS hold
LEFT JOIN public.job_limits AS known ON known.rule = hold.rule
WHERE hold.job_id = %(job_id)s AND hold.tenant = %(tenant)s
ORDER BY hold.rank, hold.rule
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """One rule of one job, by the name under which it counts.

    Attributes:
        rank: Its place among the job's rules.
        ageing: After so long it counts as one priority more.
    """

    rule: str
    rank: int
    kind: str
    allowed: int
    period: timedelta | None = None
    is_fair: bool = False
    ageing: timedelta | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """How a job stands with one of its rules.

    Attributes:
        state: `running`: it let the job through; `waiting`, `passed`: the job waits for it; `later`: not yet.
        allowed: Now; it may have been set at run time.
        slot_at: When its message is due, by the rate.
        running: How many jobs it let through that have not ended.
        ahead: How many go first, as things are; 10,000: or more.
    """

    rule: str
    state: str
    kind: str
    allowed: int | None
    period: timedelta | None
    slot_at: datetime | None
    held_at: datetime
    running: int
    ahead: int


def hold(
    connection: DriverConnection,
    job: JobKey,
    task_id: str,
    holds: Sequence[Hold],
    *,
    priority: int,
    is_new: bool,
) -> bool:
    """Put a job under its rules.

    Args:
        connection: In the transaction that made its row.
        job: Which.
        task_id: That its message has.
        holds: Its rules; one at least.
        priority: 0 to 9.
        is_new: It never had any.

    Returns:
        Whether it is due later, and stands in line from then on.
    """
    key: dict[str, Any] = {"tenant": job.tenant, "job_id": job.job_id}
    if not is_new:
        connection.execute(FORGET, key)
    told = sorted(holds, key=lambda each: (each.rank, each.rule))
    rules = [
        {
            "rule": each.rule,
            "rank": each.rank,
            "kind": each.kind,
            "allowed": each.allowed,
            "period": None if each.period is None else each.period.total_seconds(),
            "is_fair": each.is_fair,
            "ageing": None if each.ageing is None else each.ageing.total_seconds(),
            "is_first": number == 0,
        }
        for number, each in enumerate(told)
    ]
    params = key | {"task_id": task_id, "rules": json.dumps(rules), "priority": priority}
    [(is_later, _)] = tuples(connection, HOLD, params)
    return bool(is_later)


def mark_message(connection: DriverConnection, task_id: str) -> None:
    """Have the job's message, which comes due later, stand in line then."""
    connection.execute(MARK_MESSAGE, {"task_id": task_id})


def hold_messages(connection: DriverConnection, job_ids: Sequence[UUID]) -> None:
    """Hold the messages of those of these jobs that wait for a rule, and were just stored."""
    if job_ids and first_tuple(connection, IS_THERE) == (True,):
        held = tuples(connection, STILL_HELD, {"job_ids": list(job_ids)})
        told = {"task_ids": [each[0] for each in held], "stand_in_line": [each[1] for each in held]}
        connection.execute(HOLD_MESSAGES, told)
        connection.execute(DUE_BY_MESSAGE, {"job_ids": list(job_ids)})


def still_held(connection: DriverConnection, job_ids: Sequence[UUID]) -> set[str]:
    """Give the task ids of those of these jobs that a rule has not let go; none where there are no rules yet."""
    if not job_ids or first_tuple(connection, IS_THERE) == (False,):
        return set()
    return {each[0] for each in tuples(connection, STILL_HELD, {"job_ids": list(job_ids)})}


def come_due(database: Database) -> int:
    """Have those jobs of Temporal's stand in line that have come due; gives how many."""
    return database.run(lambda own: own.execute(COME_DUE).rowcount)


def holdings(connection: DriverConnection, job: JobKey) -> list[Holding]:
    """Tell how a job stands with its rules, in the order in which it passes them; none where there are no rules yet."""
    if first_tuple(connection, IS_THERE) == (False,):
        return []
    return all_rows(connection, Holding, HOLDING, {"tenant": job.tenant, "job_id": job.job_id})

"""What firing writes: all within the transaction that makes the jobs.

What if a scheduler dies between two steps? The row's lock, the fire, the job, its message and the row's next instant
are one transaction: either all of it is there, or another scheduler finds the schedule due, at once. Who inserts the
row of a fire makes its job; nobody else can.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.keys import TenantId
from jobbridge.core.schedules.policies import FireOutcome, Trigger
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.fetch import all_rows, first_row
from jobbridge.store.schedules.rows import SCHEDULE_COLUMNS, ScheduleRow
from jobbridge.store.statuses import MAY_BE_AT_WORK, has_stopped

_THIS_SCHEDULE: LiteralString = "tenant = %(tenant)s AND schedule_id = %(schedule_id)s"

#: Never waits for another scheduler: what that one holds, it fires.
CLAIM: LiteralString = f"""
SELECT {SCHEDULE_COLUMNS}
FROM public.job_schedules
WHERE due_at <= %(now)s
ORDER BY due_at
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

#: Also of those that another scheduler holds: should it die, they are due still.
NEXT_DUE: LiteralString = (
    "SELECT due_at FROM public.job_schedules WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1"
)

LOCK_ONE: LiteralString = f"""
SELECT {SCHEDULE_COLUMNS}
FROM public.job_schedules
WHERE {_THIS_SCHEDULE} AND deleted_at IS NULL
FOR UPDATE
"""

#: Also those that were cancelled and still stop: what is made next does not run beside them.
OPEN_JOBS: LiteralString = f"""
SELECT job_id, status, worker_number
FROM public.jobs
WHERE tenant = %(tenant)s AND job_id = ANY(%(job_ids)s) AND {MAY_BE_AT_WORK}
"""

_ROW: LiteralString = """public.job_schedule_fires AS fire (
    tenant, schedule_id, fire_at, trigger, outcome, job_id, reason, missed_until
)
VALUES (
    %(tenant)s, %(schedule_id)s, %(fire_at)s, %(trigger)s, %(outcome)s, %(job_id)s, %(reason)s, %(missed_until)s
)
ON CONFLICT (tenant, schedule_id, fire_at)"""

INSERT_FIRE: LiteralString = f"INSERT INTO {_ROW} DO NOTHING"

#: What had no job gets one.
BACKFILL_FIRE: LiteralString = f"""INSERT INTO {_ROW} DO UPDATE SET
    trigger = excluded.trigger, outcome = excluded.outcome, job_id = excluded.job_id, reason = excluded.reason,
    fired_at = clock_timestamp()
WHERE fire.outcome IN ('skipped', 'missed', 'failed')
"""

#: Of Temporal: a buffered fire may begin after a later one noted that nothing had come of it.
TEMPORAL_FIRE: LiteralString = f"{BACKFILL_FIRE} AND fire.job_id IS NULL"

SETTLE_FIRE: LiteralString = f"""
UPDATE public.job_schedule_fires
SET outcome = %(outcome)s, job_id = %(job_id)s, reason = %(reason)s, fired_at = clock_timestamp()
WHERE {_THIS_SCHEDULE} AND fire_at = %(fire_at)s
"""

ADVANCE: LiteralString = f"""
UPDATE public.job_schedules
SET next_fire_at = %(next_fire_at)s, due_at = %(due_at)s, buffered_fire_at = %(buffered_fire_at)s,
    last_fire_at = coalesce(%(last_fire_at)s, last_fire_at), last_job_id = coalesce(%(last_job_id)s, last_job_id),
    open_jobs = %(open_jobs)s, updated_at = clock_timestamp()
WHERE {_THIS_SCHEDULE}
"""

POSTPONE: LiteralString = f"""
UPDATE public.job_schedules SET due_at = %(due_at)s, updated_at = clock_timestamp() WHERE {_THIS_SCHEDULE}
"""


def claim(connection: DriverConnection, now: datetime, *, limit: int) -> Sequence[ScheduleRow]:
    """Lock schedules that are due, the longest due first, and that no other scheduler holds."""
    return all_rows(connection, ScheduleRow.of, CLAIM, {"now": now, "limit": limit})


def lock_one(connection: DriverConnection, tenant: TenantId, schedule_id: UUID) -> ScheduleRow | None:
    """Lock one schedule, waiting for who holds it; None: there is none."""
    return first_row(connection, ScheduleRow.of, LOCK_ONE, {"tenant": tenant, "schedule_id": schedule_id})


def next_due(connection: DriverConnection) -> datetime | None:
    """Give when the next schedule is due; None: none ever."""
    row = connection.execute(NEXT_DUE).fetchone()
    return None if row is None else row[0]


def still_open(connection: DriverConnection, row: ScheduleRow, job_ids: Sequence[UUID]) -> list[UUID]:
    """Give those of a schedule's jobs that have not ended, or were cancelled and have not stopped."""
    if not job_ids:
        return []
    params = {"tenant": row.tenant, "job_ids": list(job_ids)}
    found = connection.execute(OPEN_JOBS, params).fetchall()
    return [job_id for job_id, status, number in found if not has_stopped(connection, status, number)]


def note_fire(
    connection: DriverConnection,
    row: ScheduleRow,
    fire_at: datetime,
    outcome: FireOutcome,
    *,
    trigger: Trigger = Trigger.SCHEDULE,
    job_id: UUID | None = None,
    reason: str | None = None,
    missed_until: datetime | None = None,
    is_temporal: bool = False,
) -> bool:
    """Write the row of a fire; False: there is one already, so this fire is somebody else's.

    One that is backfilled, or fired by Temporal, takes the place of one that made no job.
    """
    params = _fire(row, fire_at) | {
        "trigger": trigger.value,
        "outcome": outcome.value,
        "job_id": job_id,
        "reason": reason,
        "missed_until": missed_until,
    }
    usual = BACKFILL_FIRE if trigger is Trigger.BACKFILL else INSERT_FIRE
    statement = TEMPORAL_FIRE if is_temporal else usual
    return connection.execute(statement, params).rowcount > 0


def settle_fire(
    connection: DriverConnection,
    row: ScheduleRow,
    fire_at: datetime,
    outcome: FireOutcome,
    *,
    job_id: UUID | None = None,
    reason: str | None = None,
) -> None:
    """Write what became of a fire in the end."""
    told = {"outcome": outcome.value, "job_id": job_id, "reason": reason}
    connection.execute(SETTLE_FIRE, _fire(row, fire_at) | told)


def advance(
    connection: DriverConnection,
    row: ScheduleRow,
    *,
    next_fire_at: datetime | None,
    due_at: datetime | None = None,
    buffered_fire_at: datetime | None = None,
    last_fire_at: datetime | None = None,
    last_job_id: UUID | None = None,
    open_jobs: Sequence[UUID],
) -> None:
    """Write where the schedule is now; a last fire or job of None leaves what there is."""
    params: dict[str, Any] = {
        "tenant": row.tenant,
        "schedule_id": row.schedule_id,
        "next_fire_at": next_fire_at,
        "due_at": due_at,
        "buffered_fire_at": buffered_fire_at,
        "last_fire_at": last_fire_at,
        "last_job_id": last_job_id,
        "open_jobs": list(open_jobs),
    }
    connection.execute(ADVANCE, params)


def postpone(connection: DriverConnection, row: ScheduleRow, until: datetime) -> None:
    """Look at a schedule again then; its fires stay due."""
    params = {"tenant": row.tenant, "schedule_id": row.schedule_id, "due_at": until}
    connection.execute(POSTPONE, params)


def _fire(row: ScheduleRow, fire_at: datetime) -> dict[str, Any]:
    return {"tenant": row.tenant, "schedule_id": row.schedule_id, "fire_at": fire_at}

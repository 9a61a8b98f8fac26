"""What the table says of schedules that Temporal fires, and what Temporal was told.

Sent to Temporal by `jobbridge.temporal.schedules.reconciler`; a fire there notes itself by `settle_unfired` and
`fires.note_fire`, in the transaction that makes its job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.keys import TenantId
from jobbridge.core.schedules.policies import FireOutcome
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.schedules.fires import note_fire
from jobbridge.store.schedules.repository import CHANNEL
from jobbridge.store.schedules.rows import SCHEDULE_COLUMNS, ScheduleRow

_THIS_SCHEDULE: LiteralString = "tenant = %(tenant)s AND schedule_id = %(schedule_id)s"

#: Changed since Temporal was told, or to be told again before the clock changes that it knows of are over. What it did
#: not take goes behind the others.
_IS_TO_TELL: LiteralString = """engine = 'temporal' AND deleted_at IS NULL
  AND (mirrored_version IS DISTINCT FROM version OR mirrored_until <= now())"""
TO_TELL: LiteralString = f"""
SELECT {SCHEDULE_COLUMNS}
FROM public.job_schedules
WHERE {_IS_TO_TELL}
ORDER BY mirror_error IS NOT NULL, updated_at
LIMIT %(limit)s
"""

#: Deleted, or fired by another engine now.
_IS_TO_REMOVE: LiteralString = (
    "mirrored_version IS NOT NULL AND (deleted_at IS NOT NULL OR engine <> 'temporal')"
)
TO_REMOVE: LiteralString = f"""
SELECT {SCHEDULE_COLUMNS}
FROM public.job_schedules
WHERE {_IS_TO_REMOVE}
ORDER BY updated_at
LIMIT %(limit)s
"""

PRESENT: LiteralString = """
SELECT tenant, schedule_id, version, paused
FROM public.job_schedules
WHERE engine = 'temporal' AND deleted_at IS NULL
"""

TOLD: LiteralString = f"""
UPDATE public.job_schedules
SET mirrored_version = %(version)s, mirrored_until = %(until)s, mirror_error = NULL
WHERE {_THIS_SCHEDULE}
"""

REMOVED: LiteralString = f"""
UPDATE public.job_schedules
SET mirrored_version = NULL, mirrored_until = NULL, mirror_error = NULL
WHERE {_THIS_SCHEDULE}
"""

#: All that Temporal has, and soon: every reconciler listens.
TELL_AGAIN: LiteralString = f"""
WITH told AS (
    UPDATE public.job_schedules
    SET mirrored_until = now()
    WHERE engine = 'temporal' AND deleted_at IS NULL AND mirrored_version IS NOT NULL
    RETURNING 1
)
SELECT count(*), pg_notify('{CHANNEL}', '') FROM told
"""

#: True the first time that this is the trouble.
TROUBLE: LiteralString = f"""
UPDATE public.job_schedules
SET mirror_error = %(error)s
WHERE {_THIS_SCHEDULE} AND mirror_error IS DISTINCT FROM %(error)s
"""

#: Those whose next instant has passed long since without a run that noted it. An index is not asked for a volatile
#: time, so it is `now()` here.
_IS_OVERDUE: LiteralString = """engine = 'temporal' AND deleted_at IS NULL AND NOT paused
  AND next_fire_at < now() - %(grace)s::interval"""
OVERDUE: LiteralString = f"""
SELECT tenant, schedule_id
FROM public.job_schedules
WHERE {_IS_OVERDUE}
LIMIT %(limit)s
"""

#: Whether there is any of these: most looks find none.
IS_AMISS: LiteralString = f"""
SELECT
    EXISTS (SELECT FROM public.job_schedules WHERE {_IS_TO_REMOVE})
    OR EXISTS (SELECT FROM public.job_schedules WHERE {_IS_TO_TELL})
    OR EXISTS (SELECT FROM public.job_schedules WHERE {_IS_OVERDUE})
"""

FIRE_JOB: LiteralString = f"""
SELECT job_id FROM public.job_schedule_fires WHERE {_THIS_SCHEDULE} AND fire_at = %(fire_at)s
"""

#: What is said of an instant of which Temporal told nothing: nobody has decided so.
UNTOLD = "Temporal did not fire it"

#: Whether a scheduler has decided what becomes of an instant; one that came too late notes the first of several.
SETTLED: LiteralString = f"""
SELECT true
FROM public.job_schedule_fires
WHERE {_THIS_SCHEDULE}
  AND (fire_at = %(fire_at)s AND (outcome <> 'missed' OR reason IS DISTINCT FROM %(untold)s)
       OR fire_at <= %(fire_at)s AND missed_until > %(fire_at)s)
LIMIT 1
"""

JOB_ENDED_AT: LiteralString = """
SELECT completed_at FROM public.jobs WHERE tenant = %(tenant)s AND job_id = %(job_id)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class PresentSchedule:
    """A schedule that Temporal is to have."""

    tenant: TenantId
    schedule_id: UUID
    version: int
    paused: bool


class MirrorStore:
    """Reads what is to be told to Temporal, and writes what it was told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_amiss(self, *, grace: timedelta) -> bool:
        """Whether there is anything `to_tell`, `to_remove` or `overdue`."""
        row = self._database.run(lambda own: own.execute(IS_AMISS, {"grace": grace}).fetchone())
        return bool(row and row[0])

    def to_tell(self, *, limit: int = 100) -> Sequence[ScheduleRow]:
        """Give the schedules that Temporal does not have as they are now."""
        return self._rows(TO_TELL, limit)

    def to_remove(self, *, limit: int = 100) -> Sequence[ScheduleRow]:
        """Give the schedules that Temporal has, and must not fire any more."""
        return self._rows(TO_REMOVE, limit)

    def present(self) -> dict[UUID, PresentSchedule]:
        """Give all that Temporal is to have. An outage is an error: absent and unknown are different."""
        rows = self._database.run(lambda own: all_rows(own, PresentSchedule, PRESENT))
        return {row.schedule_id: row for row in rows}

    def overdue(self, *, grace: timedelta, limit: int = 100) -> Sequence[tuple[TenantId, UUID]]:
        """Give the schedules whose next instant passed longer ago than that."""
        params = {"grace": grace, "limit": limit}
        return self._database.run(lambda own: own.execute(OVERDUE, params).fetchall())

    def note_told(self, row: ScheduleRow, *, until: datetime | None) -> None:
        """Write that Temporal has it in this version, and when it must be told again."""
        self._execute(TOLD, row, version=row.version, until=until)

    def note_removed(self, row: ScheduleRow) -> None:
        """Write that Temporal has it no more."""
        self._execute(REMOVED, row)

    def tell_again(self) -> int:
        """Have Temporal told of all schedules once more: it can take more of them now. Gives their number."""
        row = self._database.run(lambda own: own.execute(TELL_AGAIN).fetchone())
        return int(row[0]) if row else 0

    def note_trouble(self, row: ScheduleRow, error: str) -> bool:
        """Write why Temporal cannot be told; whether that is news."""
        return self._execute(TROUBLE, row, error=error) > 0

    def _execute(self, statement: LiteralString, row: ScheduleRow, **params: Any) -> int:
        params |= {"tenant": row.tenant, "schedule_id": row.schedule_id}
        return self._database.run(lambda own: own.execute(statement, params).rowcount)

    def _rows(self, statement: LiteralString, limit: int) -> Sequence[ScheduleRow]:
        return self._database.run(lambda own: all_rows(own, ScheduleRow.of, statement, {"limit": limit}))


def job_of_fire(
    connection: DriverConnection, tenant: TenantId, schedule_id: UUID, fire_at: datetime
) -> UUID | None:
    """Give the job that this fire made."""
    params = {"tenant": tenant, "schedule_id": schedule_id, "fire_at": fire_at}
    found = connection.execute(FIRE_JOB, params).fetchone()
    return found[0] if found else None


def is_unsettled(connection: DriverConnection, row: ScheduleRow, fire_at: datetime) -> bool:
    """Whether nobody has decided what becomes of this instant."""
    params = {"tenant": row.tenant, "schedule_id": row.schedule_id, "fire_at": fire_at, "untold": UNTOLD}
    return connection.execute(SETTLED, params).fetchone() is None


def settle_unfired(connection: DriverConnection, row: ScheduleRow, instants: Sequence[datetime]) -> None:
    """Write that nothing came of these instants, where nothing is written yet, and why.

    Temporal does not tell of the fires that its overlap policy left out. Whether the job before was still open tells
    them from those that nobody was there to fire.
    """
    if not instants:
        return
    is_open_until = _end_of_last_job(connection, row)
    for instant in instants:
        is_overlap = is_open_until is not None and instant < is_open_until
        outcome = FireOutcome.SKIPPED if is_overlap else FireOutcome.MISSED
        reason = "an earlier job has not ended" if is_overlap else UNTOLD
        note_fire(connection, row, instant, outcome, reason=reason)


def _end_of_last_job(connection: DriverConnection, row: ScheduleRow) -> datetime | None:
    if row.last_job_id is None:
        return None
    params = {"tenant": row.tenant, "job_id": row.last_job_id}
    found = connection.execute(JOB_ENDED_AT, params).fetchone()
    if found is None:
        return None
    ended_at: datetime | None = found[0]
    return ended_at or datetime.max.replace(tzinfo=row.created_at.tzinfo)

"""Schedules: made, changed, paused, deleted, listed.

Each change locks the row first, so that it waits for a scheduler that is firing it, and a scheduler never fires by a
definition that is being changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from jobbridge.codec.schedules import seal_arguments
from jobbridge.codec.sealing import Codec
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.core.schedules.planning import Plan, ScheduleState, begin
from jobbridge.core.schedules.specs import kind_of
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import CallersConnection, Database, refusal
from jobbridge.store.fetch import all_rows, first_row
from jobbridge.store.schedules.rows import FIRE_COLUMNS, SCHEDULE_COLUMNS, FireRow, ScheduleRow, as_json

#: Notified in the transaction that changes a schedule; every beat and every reconciler listens.
CHANNEL = "jobbridge_schedules"

_THIS_SCHEDULE: LiteralString = "tenant = %(tenant)s AND schedule_id = %(schedule_id)s"
_TIMING: LiteralString = (
    "(schedule.kind, schedule.spec, schedule.zone, schedule.jitter_seconds, schedule.engine)"
)
_NEW_TIMING: LiteralString = (
    "(excluded.kind, excluded.spec, excluded.zone, excluded.jitter_seconds, excluded.engine)"
)

#: What code declares again is paused as it was when it was deleted, perhaps by a release that does not declare it.
_COMES_BACK: LiteralString = """
    (schedule.deleted_at IS NULL OR schedule.declared_by IS NOT NULL AND schedule.declared_by = excluded.declared_by)
"""

#: A definition that changes nothing writes nothing. What was planned stays, unless its timing changed. `xmax = 0`: it
#: was inserted. Whoever did not make the row does not change it.
SAVE: LiteralString = f"""
INSERT INTO public.job_schedules AS schedule (
    tenant, schedule_id, name, task, args, kwargs, options, kind, spec, zone, overlap, catchup_seconds, jitter_seconds,
    engine, queue, priority, user_id, declared_by, next_fire_at, due_at
)
VALUES (
    %(tenant)s, %(schedule_id)s, %(name)s, %(task)s, %(args)s, %(kwargs)s, %(options)s, %(kind)s, %(spec)s, %(zone)s,
    %(overlap)s, %(catchup_seconds)s, %(jitter_seconds)s, %(engine)s, %(queue)s, %(priority)s, %(user_id)s,
    %(declared_by)s, %(next_fire_at)s, %(due_at)s
)
ON CONFLICT (tenant, schedule_id) DO UPDATE SET
    task = excluded.task, args = excluded.args, kwargs = excluded.kwargs, options = excluded.options,
    kind = excluded.kind, spec = excluded.spec, zone = excluded.zone, overlap = excluded.overlap,
    catchup_seconds = excluded.catchup_seconds, jitter_seconds = excluded.jitter_seconds, engine = excluded.engine,
    queue = excluded.queue, priority = excluded.priority, user_id = excluded.user_id,
    declared_by = excluded.declared_by,
    next_fire_at = CASE WHEN schedule.deleted_at IS NULL AND {_TIMING} = {_NEW_TIMING}
                        THEN schedule.next_fire_at ELSE excluded.next_fire_at END,
    due_at = CASE WHEN schedule.paused AND {_COMES_BACK} THEN NULL
                  WHEN schedule.deleted_at IS NOT NULL THEN excluded.due_at
                  WHEN {_TIMING} = {_NEW_TIMING} THEN schedule.due_at
                  ELSE excluded.due_at END,
    paused = schedule.paused AND {_COMES_BACK},
    note = CASE WHEN {_COMES_BACK} THEN schedule.note END,
    buffered_fire_at = CASE WHEN schedule.engine = excluded.engine THEN schedule.buffered_fire_at END,
    version = schedule.version + 1,
    deleted_at = NULL,
    updated_at = clock_timestamp()
WHERE schedule.deleted_at IS NOT NULL
   OR schedule.declared_by IS NOT DISTINCT FROM excluded.declared_by
  AND (
    schedule.task, schedule.args::text, schedule.kwargs::text, schedule.options::text, schedule.kind, schedule.spec,
    schedule.zone, schedule.overlap, schedule.catchup_seconds, schedule.jitter_seconds, schedule.engine,
    schedule.queue, schedule.priority, schedule.user_id
  ) IS DISTINCT FROM (
    excluded.task, excluded.args::text, excluded.kwargs::text, excluded.options::text, excluded.kind, excluded.spec,
    excluded.zone, excluded.overlap, excluded.catchup_seconds, excluded.jitter_seconds, excluded.engine,
    excluded.queue, excluded.priority, excluded.user_id
  )
RETURNING xmax = 0, pg_notify('{CHANNEL}', '')
"""

GET: LiteralString = f"SELECT {SCHEDULE_COLUMNS} FROM public.job_schedules WHERE {_THIS_SCHEDULE}"

LOCK: LiteralString = f"{GET} FOR UPDATE"

LIST: LiteralString = f"""
SELECT {SCHEDULE_COLUMNS}
FROM public.job_schedules
WHERE deleted_at IS NULL
  AND (tenant = %(tenant)s OR %(tenant)s IS NULL)
  AND (%(task)s::text IS NULL OR task = %(task)s)
  AND (%(engine)s::text IS NULL OR engine = %(engine)s)
  AND (%(declared_by)s::text IS NULL OR declared_by = %(declared_by)s)
  AND (%(text)s::text IS NULL OR strpos(lower(name), lower(%(text)s)) > 0 OR strpos(lower(task), lower(%(text)s)) > 0)
  AND (%(paused)s::boolean IS NULL OR paused = %(paused)s)
  AND (%(after_tenant)s::text IS NULL OR (tenant::text, name) > (%(after_tenant)s::text, %(after_name)s::text))
ORDER BY tenant, name
LIMIT %(limit)s
"""

FIND: LiteralString = f"""
SELECT {SCHEDULE_COLUMNS}
FROM public.job_schedules
WHERE deleted_at IS NULL
  AND (tenant = %(tenant)s OR %(tenant)s IS NULL)
  AND (name = %(text)s OR schedule_id = %(id)s)
ORDER BY tenant
LIMIT 2
"""

PAUSE: LiteralString = f"""
UPDATE public.job_schedules
SET paused = true, note = %(note)s, due_at = NULL, version = version + 1, updated_at = clock_timestamp()
WHERE {_THIS_SCHEDULE} AND deleted_at IS NULL
RETURNING pg_notify('{CHANNEL}', '')
"""

#: A fire that waits for an earlier job's end is looked after at once.
RESUME: LiteralString = f"""
UPDATE public.job_schedules
SET paused = false, note = NULL, next_fire_at = %(next_fire_at)s,
    due_at = CASE WHEN buffered_fire_at IS NOT NULL AND engine = 'celery' THEN clock_timestamp() ELSE %(due_at)s END,
    version = version + 1, updated_at = clock_timestamp()
WHERE {_THIS_SCHEDULE}
RETURNING pg_notify('{CHANNEL}', '')
"""

DELETE: LiteralString = f"""
UPDATE public.job_schedules
SET deleted_at = clock_timestamp(), next_fire_at = NULL, due_at = NULL, buffered_fire_at = NULL,
    version = version + 1, updated_at = clock_timestamp()
WHERE {_THIS_SCHEDULE} AND deleted_at IS NULL
RETURNING pg_notify('{CHANNEL}', '')
"""

HISTORY: LiteralString = f"""
SELECT {FIRE_COLUMNS}
FROM public.job_schedule_fires
WHERE {_THIS_SCHEDULE}
ORDER BY fire_at DESC
LIMIT %(limit)s
"""

PRUNE_FIRES: LiteralString = """
DELETE FROM public.job_schedule_fires
WHERE (tenant, schedule_id, fire_at) IN (
    SELECT tenant, schedule_id, fire_at
    FROM public.job_schedule_fires
    WHERE fired_at < now() - %(older_than)s::interval AND outcome <> 'buffered'
    ORDER BY fired_at
    LIMIT %(limit)s
)
"""

#: Those that Temporal still has are kept until it was told.
PRUNE_DELETED: LiteralString = """
DELETE FROM public.job_schedules
WHERE deleted_at < now() - %(older_than)s::interval AND mirrored_version IS NULL
"""

NOW: LiteralString = "SELECT clock_timestamp()"

#: Tells what time it is: by default the database's own clock.
Clock = Callable[[DriverConnection], datetime]


def database_clock(connection: DriverConnection) -> datetime:
    """Give the database's time."""
    row = connection.execute(NOW).fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


class SaveOutcome(StrEnum):
    """What came of saving a definition."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    NOT_OURS = "not_ours"  # the name is taken by a schedule that someone else declares


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """A schedule as it is now, and what came of saving it."""

    row: ScheduleRow
    outcome: SaveOutcome


class ScheduleStore:
    """Schedules and their history.

    Args:
        database: Where the tables are.
        clock: What time it is.
    """

    def __init__(self, database: Database, *, clock: Clock = database_clock) -> None:
        self._database = database
        self._clock = clock

    def save(self, definition: ScheduleDefinition, connection: CallersConnection | None = None) -> Saved:
        """Make the schedule of that tenant and name, or change it to this definition.

        A change of its timing plans it anew from now. Whether it is paused stays as it is.

        Args:
            definition: What it is to be.
            connection: Within this transaction; else at once.
        """
        with self._transaction(connection) as own:
            plan = begin(_fresh_state(definition), self._clock(own))
            written = own.execute(SAVE, _columns(definition, plan, self._database.codec)).fetchone()
            row = first_row(own, ScheduleRow.of, GET, _key(definition.tenant, definition.schedule_id))
            assert row is not None
        return Saved(row=row, outcome=_save_outcome(written, row, definition))

    def get(self, tenant: TenantId, schedule_id: UUID) -> ScheduleRow | None:
        """Give a schedule that was not deleted."""
        row = self._database.run(lambda own: first_row(own, ScheduleRow.of, GET, _key(tenant, schedule_id)))
        return None if row is None or row.deleted_at is not None else row

    def was_made(self, definition: ScheduleDefinition, connection: CallersConnection) -> bool:
        """Tell whether there is such a schedule, or was one that is deleted."""
        with self._transaction(connection) as own:
            key = _key(definition.tenant, definition.schedule_id)
            return first_row(own, ScheduleRow.of, GET, key) is not None

    def find(self, text: str, tenant: TenantId | None = None) -> Sequence[ScheduleRow]:
        """Give the schedules of that name or id: of one tenant at most one, of all at most two."""
        params = {"tenant": tenant, "text": text, "id": _uuid_or_none(text)}
        return self._database.run(lambda own: all_rows(own, ScheduleRow.of, FIND, params))

    def list(
        self,
        *,
        tenant: TenantId | None = None,
        task: str | None = None,
        engine: Engine | None = None,
        declared_by: str | None = None,
        text: str | None = None,
        paused: bool | None = None,
        after: tuple[TenantId, str] = (TenantId(""), ""),
        limit: int | None = 1000,
        connection: CallersConnection | None = None,
    ) -> Sequence[ScheduleRow]:
        """Give schedules by tenant and name; those that were deleted are not among them.

        Args:
            text: In the name, or the task's.
            after: Tenant and name of the last one that is known already.
            limit: At most so many; None: all.
        """
        params = {
            "text": text,
            "paused": paused,
            "after_tenant": after[0] or None,
            "after_name": after[1],
            "tenant": tenant,
            "task": task,
            "engine": engine and engine.value,
            "declared_by": declared_by,
            "limit": limit,
        }
        if connection is not None:
            with self._transaction(connection) as own:
                return all_rows(own, ScheduleRow.of, LIST, params)
        return self._database.run(lambda own: all_rows(own, ScheduleRow.of, LIST, params))

    def history(self, tenant: TenantId, schedule_id: UUID, *, limit: int = 100) -> Sequence[FireRow]:
        """Give what became of its fires, the newest first; also of a schedule that was deleted."""
        params = _key(tenant, schedule_id) | {"limit": limit}
        return self._database.run(lambda own: all_rows(own, FireRow.of, HISTORY, params))

    def pause(self, tenant: TenantId, schedule_id: UUID, *, note: str | None = None) -> bool:
        """Keep it from firing until `resume`; False: there is no such schedule."""
        params = _key(tenant, schedule_id) | {"note": note}
        return self._database.run(lambda own: own.execute(PAUSE, params).rowcount) > 0

    def resume(self, tenant: TenantId, schedule_id: UUID) -> bool:
        """Let it fire again, from now on; False: there is no such schedule. What it did not fire stays so."""
        with self._transaction(None) as own:
            row = first_row(own, ScheduleRow.of, LOCK, _key(tenant, schedule_id))
            if row is None or row.deleted_at is not None:
                return False
            if row.paused:
                plan = begin(_fresh_state(row.definition), self._clock(own))
                own.execute(RESUME, _key(tenant, schedule_id) | _planned(plan, row.engine))
        return True

    def delete(
        self, tenant: TenantId, schedule_id: UUID, connection: CallersConnection | None = None
    ) -> bool:
        """Delete it; its history stays, and so do the jobs that it made. False: there is no such schedule."""
        with self._transaction(connection) as own:
            return own.execute(DELETE, _key(tenant, schedule_id)).rowcount > 0

    def prune(self, *, older_than: timedelta, limit: int = 1000) -> int:
        """Delete fires older than that, and schedules that were deleted before; gives the number of fires."""
        params = {"older_than": older_than, "limit": limit}

        def work(own: DriverConnection) -> int:
            own.execute(PRUNE_DELETED, params)
            return own.execute(PRUNE_FIRES, params).rowcount

        return self._database.run(work)

    @contextmanager
    def _transaction(self, connection: CallersConnection | None) -> Iterator[DriverConnection]:
        try:
            with self._database.transaction(connection) as own:
                yield own
        except psycopg.Error as error:
            if connection is not None:
                raise  # that transaction is the caller's, and over
            raise refusal(error) from error


def _save_outcome(written: Any, row: ScheduleRow, definition: ScheduleDefinition) -> SaveOutcome:
    if written is not None:
        return SaveOutcome.CREATED if written[0] else SaveOutcome.UPDATED
    return SaveOutcome.UNCHANGED if row.declared_by == definition.declared_by else SaveOutcome.NOT_OURS


def _fresh_state(definition: ScheduleDefinition) -> ScheduleState:
    return ScheduleState(
        schedule_id=definition.schedule_id,
        spec=definition.spec,
        zone=definition.time_zone,
        next_fire_at=None,
        catchup=definition.catchup,
        jitter=definition.jitter,
    )


def _columns(definition: ScheduleDefinition, plan: Plan, codec: Codec) -> dict[str, Any]:
    args, kwargs = list(definition.args), dict(definition.kwargs)
    return {
        "tenant": definition.tenant,
        "schedule_id": definition.schedule_id,
        "name": definition.name,
        "task": definition.task,
        "args": as_json(seal_arguments(codec, definition.schedule_id, "args", args)),
        "kwargs": as_json(seal_arguments(codec, definition.schedule_id, "kwargs", kwargs)),
        "options": as_json(dict(definition.options)),
        "kind": kind_of(definition.spec).value,
        "spec": definition.spec.text,
        "zone": definition.zone,
        "overlap": definition.overlap.value,
        "catchup_seconds": int(definition.catchup.total_seconds()),
        "jitter_seconds": int(definition.jitter.total_seconds()),
        "engine": definition.engine.value,
        "queue": definition.queue,
        "priority": definition.priority,
        "user_id": definition.user_id,
        "declared_by": definition.declared_by,
        **_planned(plan, definition.engine),
    }


def _planned(plan: Plan, engine: Engine) -> dict[str, Any]:
    # What Temporal fires, no scheduler of ours looks at.
    return {
        "next_fire_at": plan.next_fire_at,
        "due_at": plan.due_at if engine is Engine.CELERY else None,
    }


def _key(tenant: TenantId, schedule_id: UUID) -> dict[str, Any]:
    return {"tenant": tenant, "schedule_id": schedule_id}


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

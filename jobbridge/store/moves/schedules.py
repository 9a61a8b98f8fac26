"""Schedules that go to another engine. Next instant, pause and note stay; who fires is one column of one row."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

from jobbridge.core.keys import Engine
from jobbridge.core.schedules.planning import due_at
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.fetch import all_rows
from jobbridge.store.schedules.repository import CHANNEL
from jobbridge.store.schedules.rows import SCHEDULE_COLUMNS, ScheduleRow

#: Waits for a scheduler that fires one of them: it is over in moments.
TAKE: LiteralString = f"""
SELECT {SCHEDULE_COLUMNS}
FROM public.job_schedules
WHERE engine = %(engine)s AND deleted_at IS NULL
  AND (tenant = %(tenant)s OR %(tenant)s IS NULL)
  AND (%(pattern)s::text IS NULL OR task ~ %(pattern)s::text)
  AND (%(after_tenant)s::text IS NULL OR (tenant::text, name) > (%(after_tenant)s::text, %(after_name)s::text))
ORDER BY tenant::text, name
LIMIT %(limit)s
FOR UPDATE
"""

#: With a new version, so that Temporal is told.
MOVE: LiteralString = f"""
UPDATE public.job_schedules
SET engine = %(engine)s, due_at = %(due_at)s, mirror_error = NULL, version = version + 1,
    updated_at = clock_timestamp()
WHERE tenant = %(tenant)s AND schedule_id = %(schedule_id)s
RETURNING pg_notify('{CHANNEL}', '')
"""

STILL_MIRRORED: LiteralString = """
SELECT count(*) FROM public.job_schedules WHERE mirrored_version IS NOT NULL AND engine <> 'temporal'
"""

NOT_MIRRORED: LiteralString = """
SELECT count(*)
FROM public.job_schedules
WHERE engine = 'temporal' AND deleted_at IS NULL AND mirrored_version IS DISTINCT FROM version
"""


def take(
    connection: DriverConnection,
    engine: Engine,
    *,
    tenant: str | None,
    pattern: str | None,
    after: tuple[str, str] | None,
    limit: int,
) -> list[ScheduleRow]:
    """Lock schedules that an engine fires, by tenant and name, after the last of the page before."""
    params = {
        "engine": engine.value,
        "tenant": tenant,
        "pattern": pattern,
        "after_tenant": after and after[0],
        "after_name": after and after[1],
        "limit": limit,
    }
    return all_rows(connection, ScheduleRow.of, TAKE, params)


def move(connection: DriverConnection, row: ScheduleRow, engine: Engine) -> None:
    """Have another engine fire it, from its next instant on.

    Raises:
        UnsupportedOption: The row was written by hand, or by another release.
    """
    params: dict[str, Any] = {
        "engine": engine.value,
        "due_at": _due(row) if engine is Engine.CELERY else None,
        "tenant": row.tenant,
        "schedule_id": row.schedule_id,
    }
    connection.execute(MOVE, params)


def not_told(connection: DriverConnection) -> tuple[int, int]:
    """Count the schedules that Temporal has and must not fire, and those that it is to fire and was not told."""
    [(still,)] = connection.execute(STILL_MIRRORED).fetchall()
    [(missing,)] = connection.execute(NOT_MIRRORED).fetchall()
    return still, missing


def _due(row: ScheduleRow) -> datetime | None:
    if row.paused or row.next_fire_at is None:
        return None
    return due_at(row.state, row.next_fire_at)

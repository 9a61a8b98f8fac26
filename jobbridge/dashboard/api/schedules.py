"""Schedules: list, look at, pause, resume, run now, make up for what was missed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jobbridge.core.access import Role
from jobbridge.core.masking.values import without_passwords
from jobbridge.dashboard.access.bodies import STORABLE
from jobbridge.dashboard.access.request_context import POST
from jobbridge.dashboard.actions import schedules as actions
from jobbridge.dashboard.actions.schedules import do_to_schedule, find_schedule
from jobbridge.dashboard.api.documents.responses import (
    Backfilled,
    Exact,
    Fire,
    FiredNow,
    Schedule,
    ScheduleDetail,
    Schedules,
)
from jobbridge.dashboard.api.documents.timestamps import Instant
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked
from jobbridge.errors import UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.store.schedules.rows import FireRow, ScheduleRow

_FIRES = 50


class PauseSchedule(Exact):
    """Why."""

    note: str | None = Field(None, max_length=1000, json_schema_extra={**STORABLE})


class Backfill(Exact):
    """From when to when, both included."""

    start: Instant
    end: Instant


def list_schedules(context: Asked) -> Schedules:
    """Give the schedules, by tenant and name; a thousand at most."""
    rows = context.app.schedules.list(tenant=context.tenant)
    return Schedules(schedules=[Schedule.model_construct(**_fields(row)) for row in rows])


def get_schedule(context: Asked, schedule_id: str) -> ScheduleDetail:
    """Give one schedule with its next instants and its newest fires."""
    row, service = find_schedule(context), context.app.schedules
    try:
        upcoming = list(service.upcoming(row))
    except UnsupportedOption:
        upcoming = []  # it was written by hand, or by another release; `doctor` says so
    fires = service.store.history(row.tenant, row.schedule_id, limit=_FIRES)
    return ScheduleDetail.model_construct(
        **_fields(row), upcoming=upcoming, fires=[_fire(fire) for fire in fires]
    )


def pause_schedule(context: Asked, schedule_id: str, asked: PauseSchedule | None = None) -> Schedule:
    """Keep a schedule from firing until it is resumed; its running jobs go on."""
    actions.pause_schedule(context, asked.note if asked else None)
    return Schedule.model_construct(**_fields(find_schedule(context)))


def resume_schedule(context: Asked, schedule_id: str) -> Schedule:
    """Let a schedule fire again, from now on."""
    actions.resume_schedule(context)
    return Schedule.model_construct(**_fields(find_schedule(context)))


def run_schedule(context: Asked, schedule_id: str) -> FiredNow:
    """Make a schedule's job now, whatever its times and its overlap policy, also while it is paused."""
    return FiredNow(job_id=actions.run_schedule(context, find_schedule(context)))


def backfill_schedule(context: Asked, schedule_id: str, asked: Backfill) -> Backfilled:
    """Make the jobs of all fires within a time that have none; refused if they are more than a thousand."""
    row = find_schedule(context)
    run = partial(context.app.schedules.backfill, row.schedule_id, asked.start, asked.end, row.tenant)
    return Backfilled(made=list(do_to_schedule(context, row, "backfill", run)))


_SAME = (
    "schedule_id", "name", "task", "spec", "zone", "engine", "queue", "paused", "last_fire_at", "last_job_id",
)  # fmt: skip


def _fields(row: ScheduleRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _SAME} | {
        "tenant": str(row.tenant),
        "kind": str(row.kind),
        "overlap": str(row.overlap),
        "next_fire_at": None if row.paused else row.next_fire_at,
        "note": without_passwords(row.note) or None,
    }


def _fire(row: FireRow) -> Fire:
    fire = Fire.model_validate(row)
    return fire.model_copy(update={"reason": without_passwords(fire.reason) or None})


_ALL, _ONE = f"{PREFIX}/schedules", f"{PREFIX}/schedules/{{schedule_id}}"


def _action(name: str, endpoint: Callable[..., Any], *errors: int) -> ApiRule:
    return ApiRule(
        f"{_ONE}/{name}",
        f"api_schedule_{name}",
        endpoint,
        Role.OPERATOR,
        methods=POST,
        tag="schedules",
        errors=(404, *errors),
    )


RULES = (
    ApiRule(_ALL, "api_schedules", list_schedules, Role.VIEWER, tag="schedules"),
    ApiRule(_ONE, "api_schedule", get_schedule, Role.VIEWER, tag="schedules", errors=(404,)),
    _action("pause", pause_schedule),
    _action("resume", resume_schedule),
    _action("run", run_schedule, 409),
    _action("backfill", backfill_schedule, 409),
)

"""What people do to schedules, by a page or the API: found by their rights, and put on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from kombu.exceptions import OperationalError
from starlette.exceptions import HTTPException

from jobbridge.codec.schedules import hidden_schedule
from jobbridge.core.keys import TenantId
from jobbridge.dashboard.access.request_context import RequestContext, storable
from jobbridge.dashboard.errors import words
from jobbridge.errors import JobBridgeError, ScheduleNotFound

if TYPE_CHECKING:
    from jobbridge.store.schedules.rows import ScheduleRow

_Value = TypeVar("_Value")


def find_schedule(context: RequestContext) -> ScheduleRow:
    """Give the schedule of the address.

    Raises:
        HTTPException: 404, alike for one that is not there and one that is not theirs to see.
    """
    text = storable(str(context.request.path_params["schedule_id"]))
    try:
        row = context.app.schedules.find(text, context.tenant)
    except ScheduleNotFound as error:
        several = context.tenant is None and "Several" in str(error)
        raise HTTPException(
            404, f"{error} Name its tenant." if several else f"There is no schedule {text}."
        ) from None
    return row if context.sees_encrypted else hidden_schedule(row)


def pause_schedule(context: RequestContext, note: str | None) -> ScheduleRow:
    """Keep the schedule of the address from firing until somebody resumes it; gives it as it was."""
    row = find_schedule(context)
    pause = partial(context.app.schedules.store.pause, row.tenant, row.schedule_id, note=note)
    do_to_schedule(context, row, "pause", pause, reason=note)
    return row


def resume_schedule(context: RequestContext) -> ScheduleRow:
    """Let the schedule of the address fire again, from now on; gives it as it was."""
    row = find_schedule(context)
    resume = partial(context.app.schedules.store.resume, row.tenant, row.schedule_id)
    do_to_schedule(context, row, "resume", resume)
    return row


def run_schedule(context: RequestContext, row: ScheduleRow) -> UUID:
    """Make a schedule's job now; gives its id."""
    run = partial(context.app.schedules.run_now, row.schedule_id, row.tenant)
    return do_to_schedule(context, row, "run now", run)


def do_to_schedule(
    context: RequestContext,
    row: ScheduleRow,
    action: str,
    run: Callable[[], _Value],
    *,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> _Value:
    """Do it and put it on record, also when it is refused."""
    note = partial(
        context.note,
        f"{action} schedule",
        tenant=TenantId(str(row.tenant)),
        subject=row.name,
        details={"schedule_id": str(row.schedule_id), **(details or {})},
    )
    try:
        value = run()
    except (JobBridgeError, OperationalError) as error:
        note(outcome="refused", reason=words(error).text)
        raise
    note(reason=reason)
    return value

"""What recurs: when it fires next, what became of its fires, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from shlex import quote
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.schedules.fires import fires_between
from jobbridge.core.schedules.specs import zone_named
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule, storable
from jobbridge.dashboard.actions.schedules import (
    do_to_schedule,
    find_schedule,
    pause_schedule,
    resume_schedule,
    run_schedule,
)
from jobbridge.errors import JobBridgeError, UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobRow
    from jobbridge.store.schedules.rows import FireRow, ScheduleRow

_PAGE = 50
_UPCOMING = 5
_FIRES = 50
#: Fires of one backfill; the app refuses more, too.
_BACKFILL = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Fire:
    """A fire with the job that it made, if that is still there."""

    row: FireRow
    job: JobRow | None

    @property
    def late(self) -> timedelta | None:
        """How long after its instant the job started."""
        started = self.job.started_at if self.job else None
        return None if started is None else max(timedelta(0), started - self.row.fire_at)


def schedules(context: RequestContext) -> Response:
    """A page of the schedules, by tenant and name."""
    query = context.request.query_params
    text, state, engine = (storable(query.get(name, "")).strip() for name in ("text", "state", "engine"))
    tenant, name = (storable(query.get(part, "")) for part in ("after_tenant", "after"))
    rows = context.app.schedules.store.list(
        tenant=context.tenant,
        engine=Engine(engine) if engine in set(Engine) else None,
        text=text or None,
        paused={"paused": True, "active": False}.get(state),
        after=(TenantId(tenant), name),
        limit=_PAGE + 1,
    )
    shown = rows[:_PAGE]
    asked = {"text": text, "state": state, "engine": engine, "tenant": query.get("tenant", "")}
    kept = {name: value for name, value in asked.items() if value}
    last = {"after_tenant": shown[-1].tenant, "after": shown[-1].name} if len(rows) > _PAGE else {}
    return context.dashboard.page(
        context,
        "schedules.html",
        schedules=[(row, *_next_of(context, row, count=1)) for row in shown],
        asked=asked,
        is_filtered=bool(kept),
        engines=list(Engine),
        here=context.path("schedules", query=kept | ({"after": f"{tenant} {name}"} if tenant else {})),
        first=context.path("schedules", query=kept) if tenant else None,
        following=context.path("schedules", query=kept | last) if last else None,
    )


def schedule(context: RequestContext) -> Response:
    """One schedule: its next fires in its own zone, its history, and what can be done."""
    return _show(context, find_schedule(context))


def _show(
    context: RequestContext,
    row: ScheduleRow,
    *,
    problem: str = "",
    done: str = "",
    status: int = 200,
    **more: Any,
) -> Response:
    upcoming, wrong = _next_of(context, row, count=_UPCOMING)
    fires = context.app.schedules.store.history(row.tenant, row.schedule_id, limit=_FIRES)
    jobs = context.app.jobs.some(row.tenant, [fire.job_id for fire in fires if fire.job_id is not None])
    values: dict[str, Any] = {"start": "", "end": "", "instants": None} | more
    return context.dashboard.page(
        context,
        "schedule.html",
        status=status,
        schedule=row,
        upcoming=[(at, _in_zone(at, row.zone)) for at in upcoming],
        wrong=wrong,
        fires=[Fire(row=fire, job=jobs.get(fire.job_id) if fire.job_id else None) for fire in fires],
        may_act=context.principal.may(Role.OPERATOR),
        commands=_commands(context, row),
        data=row.args[0]
        if len(row.args) == 1 and not row.kwargs
        else {"args": row.args, "kwargs": row.kwargs},
        problem=problem,
        done=done,
        query=context.of_tenant(row.tenant),
        **values,
    )


def _next_of(context: RequestContext, row: ScheduleRow, *, count: int) -> tuple[Sequence[datetime], str]:
    try:
        return context.app.schedules.upcoming(row, count=count), ""
    except UnsupportedOption as error:
        return [], str(error)  # it was written by hand, or by another release


def _in_zone(at: datetime, zone: str) -> str:
    """Write an instant as the clocks of a zone show it; with the offset, which tells two equal readings apart."""
    local = at.astimezone(ZoneInfo(zone))
    return f"{local:%a %d %b %Y %H:%M:%S} {local:%z}"


def _commands(context: RequestContext, row: ScheduleRow) -> list[str]:
    name = quote(row.name) + (
        "" if context.principal.tenant is not None else f" --tenant {quote(row.tenant)}"
    )
    switch = (
        f"jobbridge schedules resume {name}" if row.paused else f"jobbridge schedules pause {name} --note …"
    )
    return [f"jobbridge schedules show {name}", switch, f"jobbridge schedules run {name}"]


# -- actions


def pause(context: RequestContext) -> Response:
    """Keep it from firing until somebody resumes it."""
    return _back(context, pause_schedule(context, context.form.get("note", "").strip() or None))


def resume(context: RequestContext) -> Response:
    """Let it fire again, from now on."""
    return _back(context, resume_schedule(context))


def run_now(context: RequestContext) -> Response:
    """Make its job now, and show that."""
    row = find_schedule(context)
    try:
        job_id = run_schedule(context, row)
    except JobBridgeError as error:
        return _refused(context, row, error)
    return RedirectResponse(
        context.path("job", job_id=job_id, query=context.of_tenant(row.tenant)), status_code=303
    )


def backfill(context: RequestContext) -> Response:
    """Say how many jobs it would make for a time that has passed; if that is confirmed, make them."""
    row, start, end = find_schedule(context), context.form.get("start", ""), context.form.get("end", "")
    times = {"start": start, "end": end}
    try:
        begin, until = _instant(start, row.zone), _instant(end, row.zone)
        instants = list(islice(fires_between(row.parsed, zone_named(row.zone), begin, until), _BACKFILL + 1))
        if until < begin or not instants:
            raise UnsupportedOption("The schedule has no fire within that time.", hint="Choose another.")
        if len(instants) > _BACKFILL:
            raise UnsupportedOption(
                f"It has more than {_BACKFILL:,} fires within that time.", hint="Choose a shorter one."
            )
        if context.form.get("confirmed") != "yes":
            return _show(context, row, instants=instants, start=start, end=end)
        made = do_to_schedule(
            context,
            row,
            "backfill",
            partial(context.app.schedules.backfill, row.schedule_id, begin, until, row.tenant),
            details=times,
        )
    except JobBridgeError as error:
        return _refused(context, row, error, **times)
    return _show(context, row, done=f"{len(made)} {'job was' if len(made) == 1 else 'jobs were'} made.")


def _instant(text: str, zone: str) -> datetime:
    """Read an instant; without an offset it is what the clocks of the schedule's zone show."""
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=zone_named(zone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise HTTPException(400, f"{text!r} is no instant. Write it as 2026-01-31T08:00.") from None


def _refused(
    context: RequestContext, row: ScheduleRow, error: JobBridgeError, *, start: str = "", end: str = ""
) -> Response:
    return _show(context, row, problem=f"{error} {error.hint}".strip(), status=409, start=start, end=end)


def _back(context: RequestContext, row: ScheduleRow) -> Response:
    address = context.path("schedule", schedule_id=row.schedule_id, query=context.of_tenant(row.tenant))
    return RedirectResponse(address, status_code=303)


RULES = (
    Rule("/schedules", "schedules", schedules, Role.VIEWER),
    Rule("/schedules/{schedule_id}", "schedule", schedule, Role.VIEWER),
    *(
        Rule(
            f"/schedules/{{schedule_id}}/{path}",
            f"{path.replace('-', '_')}_schedule",
            endpoint,
            Role.OPERATOR,
            methods=POST,
        )
        for path, endpoint in (("pause", pause), ("resume", resume), ("run", run_now), ("backfill", backfill))
    ),
)

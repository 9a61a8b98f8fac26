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
from jobbridge.dashboard.access.request_context import Rule, Visit, storable
from jobbridge.dashboard.actions.schedules import do_to_schedule, find_schedule
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


def schedules(visit: Visit) -> Response:
    """A page of the schedules, by tenant and name."""
    query = visit.request.query_params
    text, state, engine = (storable(query.get(name, "")).strip() for name in ("text", "state", "engine"))
    tenant, name = (storable(query.get(part, "")) for part in ("after_tenant", "after"))
    rows = visit.app.schedules.store.list(
        tenant=visit.tenant,
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
    return visit.dashboard.page(
        visit,
        "schedules.html",
        schedules=[(row, *_next_of(visit, row, count=1)) for row in shown],
        asked=asked,
        is_filtered=bool(kept),
        engines=list(Engine),
        here=visit.path("schedules", query=kept | ({"after": f"{tenant} {name}"} if tenant else {})),
        first=visit.path("schedules", query=kept) if tenant else None,
        following=visit.path("schedules", query=kept | last) if last else None,
    )


def schedule(visit: Visit) -> Response:
    """One schedule: its next fires in its own zone, its history, and what can be done."""
    return _show(visit, find_schedule(visit))


def _show(
    visit: Visit, row: ScheduleRow, *, problem: str = "", done: str = "", status: int = 200, **more: Any
) -> Response:
    upcoming, wrong = _next_of(visit, row, count=_UPCOMING)
    fires = visit.app.schedules.store.history(row.tenant, row.schedule_id, limit=_FIRES)
    jobs = visit.app.jobs.some(row.tenant, [fire.job_id for fire in fires if fire.job_id is not None])
    values: dict[str, Any] = {"start": "", "end": "", "instants": None} | more
    return visit.dashboard.page(
        visit,
        "schedule.html",
        status=status,
        schedule=row,
        upcoming=[(at, _in_zone(at, row.zone)) for at in upcoming],
        wrong=wrong,
        fires=[Fire(row=fire, job=jobs.get(fire.job_id) if fire.job_id else None) for fire in fires],
        may_act=visit.principal.may(Role.OPERATOR),
        commands=_commands(visit, row),
        data=row.args[0]
        if len(row.args) == 1 and not row.kwargs
        else {"args": row.args, "kwargs": row.kwargs},
        problem=problem,
        done=done,
        query=_query(visit, row),
        **values,
    )


def _next_of(visit: Visit, row: ScheduleRow, *, count: int) -> tuple[Sequence[datetime], str]:
    try:
        return visit.app.schedules.upcoming(row, count=count), ""
    except UnsupportedOption as error:
        return [], str(error)  # it was written by hand, or by another release


def _in_zone(at: datetime, zone: str) -> str:
    """Write an instant as the clocks of a zone show it; with the offset, which tells two equal readings apart."""
    local = at.astimezone(ZoneInfo(zone))
    return f"{local:%a %d %b %Y %H:%M:%S} {local:%z}"


def _query(visit: Visit, row: ScheduleRow) -> dict[str, str] | None:
    return None if visit.principal.tenant is not None else {"tenant": row.tenant}


def _commands(visit: Visit, row: ScheduleRow) -> list[str]:
    name = quote(row.name) + ("" if visit.principal.tenant is not None else f" --tenant {quote(row.tenant)}")
    switch = (
        f"jobbridge schedules resume {name}" if row.paused else f"jobbridge schedules pause {name} --note …"
    )
    return [f"jobbridge schedules show {name}", switch, f"jobbridge schedules run {name}"]


# -- actions


def pause(visit: Visit) -> Response:
    """Keep it from firing until somebody resumes it."""
    row, note = find_schedule(visit), visit.form.get("note", "").strip() or None
    store = visit.app.schedules.store
    do_to_schedule(
        visit, row, "pause", partial(store.pause, row.tenant, row.schedule_id, note=note), reason=note
    )
    return _back(visit, row)


def resume(visit: Visit) -> Response:
    """Let it fire again, from now on."""
    row = find_schedule(visit)
    do_to_schedule(
        visit, row, "resume", partial(visit.app.schedules.store.resume, row.tenant, row.schedule_id)
    )
    return _back(visit, row)


def run_now(visit: Visit) -> Response:
    """Make its job now, and show that."""
    row = find_schedule(visit)
    run = partial(visit.app.schedules.run_now, row.schedule_id, row.tenant)
    try:
        job_id = do_to_schedule(visit, row, "run now", run)
    except JobBridgeError as error:
        return _refused(visit, row, error)
    return RedirectResponse(visit.path("job", job_id=job_id, query=_query(visit, row)), status_code=303)


def backfill(visit: Visit) -> Response:
    """Say how many jobs it would make for a time that has passed; if that is confirmed, make them."""
    row, start, end = find_schedule(visit), visit.form.get("start", ""), visit.form.get("end", "")
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
        if visit.form.get("confirmed") != "yes":
            return _show(visit, row, instants=instants, start=start, end=end)
        made = do_to_schedule(
            visit,
            row,
            "backfill",
            partial(visit.app.schedules.backfill, row.schedule_id, begin, until, row.tenant),
            details=times,
        )
    except JobBridgeError as error:
        return _refused(visit, row, error, **times)
    return _show(visit, row, done=f"{len(made)} {'job was' if len(made) == 1 else 'jobs were'} made.")


def _instant(text: str, zone: str) -> datetime:
    """Read an instant; without an offset it is what the clocks of the schedule's zone show."""
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=zone_named(zone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise HTTPException(400, f"{text!r} is no instant. Write it as 2026-01-31T08:00.") from None


def _refused(
    visit: Visit, row: ScheduleRow, error: JobBridgeError, *, start: str = "", end: str = ""
) -> Response:
    return _show(visit, row, problem=f"{error} {error.hint}".strip(), status=409, start=start, end=end)


def _back(visit: Visit, row: ScheduleRow) -> Response:
    address = visit.path("schedule", schedule_id=row.schedule_id, query=_query(visit, row))
    return RedirectResponse(address, status_code=303)


RULES = (
    Rule(path="/schedules", name="schedules", endpoint=schedules, needs=Role.VIEWER),
    Rule(path="/schedules/{schedule_id}", name="schedule", endpoint=schedule, needs=Role.VIEWER),
    *(
        Rule(
            path=f"/schedules/{{schedule_id}}/{path}",
            name=f"{path.replace('-', '_')}_schedule",
            endpoint=endpoint,
            needs=Role.OPERATOR,
            methods=("POST",),
        )
        for path, endpoint in (("pause", pause), ("resume", resume), ("run", run_now), ("backfill", backfill))
    ),
)

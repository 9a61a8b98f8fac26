"""`jobbridge schedules list|show|create|pause|resume|run|backfill|delete|import`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from jobbridge.cli.audit import Entry, by_option, on_record
from jobbridge.cli.common import (
    Markup,
    ago,
    app_option,
    app_option_of_group,
    engine_option,
    json_option,
    load_app,
    tell,
    tell_table,
    write_json,
)
from jobbridge.cli.enqueue import read_data, read_instant
from jobbridge.core.keys import Engine
from jobbridge.core.masking.values import without_passwords
from jobbridge.core.schedules.policies import FireOutcome, Overlap

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.schedules.rows import FireRow, ScheduleRow

_OUTCOME_STYLES = {
    FireOutcome.ENQUEUED: "green",
    FireOutcome.BUFFERED: "cyan",
    FireOutcome.SKIPPED: "yellow",
    FireOutcome.MISSED: "red",
    FireOutcome.FAILED: "red",
}


@click.group("schedules")
@app_option_of_group
def command() -> None:
    """Recurring jobs: list, show, create, pause, resume, run, backfill, delete and import them.

    SCHEDULE is its name or its id.
    """


def _tenant_option(function: Any) -> Any:
    return click.option("--tenant", metavar="ID", help="Whose; needed where several have one of that name.")(
        function
    )


@command.command("list")
@click.option("--tenant", metavar="ID")
@click.option("--task", metavar="NAME", help="Of this handler.")
@engine_option
@app_option
@json_option
def list_schedules(
    tenant: str | None, task: str | None, engine: str | None, app_name: str | None, as_json: bool
) -> None:
    """List schedules by tenant and name."""
    app = load_app(app_name)
    rows = app.schedules.list(tenant=tenant, task=task, engine=Engine(engine) if engine else None)
    if as_json:
        write_json([_plain(app, row) for row in rows])
        return
    shown = [
        (
            row.name, row.task, row.spec, row.zone, row.engine.value,
            "".join(map(_instant, app.schedules.upcoming(row, count=1))),
            ago(row.last_fire_at), _state(row), row.tenant,
        )
        for row in rows
    ]  # fmt: skip
    columns = ("schedule", "task", "when", "zone", "engine", "next", "last", "state", "tenant")
    tell_table(shown, *columns, empty="There are no such schedules.")


@command.command("show")
@click.argument("schedule")
@_tenant_option
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="Of its history."
)
@app_option
@json_option
def show(schedule: str, tenant: str | None, limit: int, app_name: str | None, as_json: bool) -> None:
    """Show a schedule, when it fires next, and what became of its last fires."""
    app = load_app(app_name)
    row = app.schedules.find(schedule, tenant)
    history = app.schedules.history(row.schedule_id, row.tenant, limit=limit)
    if as_json:
        write_json(_plain(app, row, count=5) | {"history": [asdict(fire) for fire in history]})
        return
    _show(app, row)
    _show_history(list(history))


@command.command("create")
@click.argument("task")
@click.argument("when")
@click.option("--name", help="By default the task's.")
@click.option("--data", callback=read_data, metavar="JSON", help="For each of its jobs; @FILE reads it.")
@click.option("--tenant", metavar="ID", help="Whose; by default the tenantId in the data.")
@click.option("--zone", help="Whose wall clock cron means; by default the app's.")
@click.option(
    "--overlap", type=click.Choice([overlap.value for overlap in Overlap]), default=Overlap.SKIP.value
)
@engine_option
@click.option("--queue", help="By default the handler's.")
@click.option("--priority", type=click.IntRange(0, 9), help="Higher first.")
@by_option
@app_option
@json_option
def create(
    task: str,
    when: str,
    by: str | None,
    app_name: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a schedule of the handler TASK, or change it.

    WHEN is cron ("0 1 * * *"), an interval ("24 hours"), or an instant.
    """
    app = load_app(app_name)
    name = options["name"] or task
    with on_record(app, "create schedule", by=by, tenant=options["tenant"], subject=name) as entry:
        handle = app.schedules.create(task, when, options.pop("data"), **options)
        entry.subject, entry.outcome = handle.name, str(handle.outcome.value)
        entry.details |= {"schedule_id": str(handle.schedule_id), "task": task, "when": when}
    following = f"; it fires next at {_instant(handle.next_fire_at)}" if handle.next_fire_at else ""
    tell(as_json, asdict(handle), f"The schedule {handle.name} is {handle.outcome.value}{following}.")
    if handle.warning and not as_json:
        click.echo(f"Warning: {handle.warning}", err=True)


@command.command("pause")
@click.argument("schedule")
@_tenant_option
@click.option("--note", help="Why; shown in lists.")
@by_option
@app_option
@json_option
def pause(
    schedule: str, tenant: str | None, note: str | None, by: str | None, app_name: str | None, as_json: bool
) -> None:
    """Keep it from firing until it is resumed."""
    app = load_app(app_name)
    with _on_record(app, "pause", schedule, tenant, by, reason=note) as (row, _):
        app.schedules.pause(row.schedule_id, row.tenant, note=note)
    _tell(app, schedule, tenant, "Paused", as_json=as_json)


@command.command("resume")
@click.argument("schedule")
@_tenant_option
@by_option
@app_option
@json_option
def resume(schedule: str, tenant: str | None, by: str | None, app_name: str | None, as_json: bool) -> None:
    """Let it fire again, from now on."""
    app = load_app(app_name)
    with _on_record(app, "resume", schedule, tenant, by) as (row, _):
        app.schedules.resume(row.schedule_id, row.tenant)
    _tell(app, schedule, tenant, "Resumed", as_json=as_json)


@command.command("run")
@click.argument("schedule")
@_tenant_option
@by_option
@app_option
@json_option
def run(schedule: str, tenant: str | None, by: str | None, app_name: str | None, as_json: bool) -> None:
    """Make one job of it now, also while it is paused."""
    app = load_app(app_name)
    with _on_record(app, "run now", schedule, tenant, by) as (row, entry):
        job_id = app.schedules.run_now(row.schedule_id, row.tenant)
        entry.details["sent"] = str(job_id)
    text = f"Sent job {job_id}. Follow it with `jobbridge jobs watch {job_id}`."
    tell(as_json, {"job_id": job_id}, text)


@command.command("backfill")
@click.argument("schedule")
@click.option(
    "--from", "start", callback=read_instant, required=True, metavar="INSTANT", help="ISO 8601 with a zone."
)
@click.option("--to", "end", callback=read_instant, metavar="INSTANT", help="Now, by default.")
@_tenant_option
@by_option
@app_option
@json_option
def backfill(
    schedule: str,
    start: datetime,
    end: datetime | None,
    tenant: str | None,
    by: str | None,
    app_name: str | None,
    as_json: bool,
) -> None:
    """Make the jobs of past fires that have none."""
    app = load_app(app_name)
    with _on_record(app, "backfill", schedule, tenant, by) as (row, entry):
        made = app.schedules.backfill(row.schedule_id, start, end or datetime.now(UTC), row.tenant)
        entry.details["jobs"] = len(made)
    tell(as_json, {"fires": list(made)}, f"Made {len(made)} job(s).")


@command.command("delete")
@click.argument("schedule")
@_tenant_option
@by_option
@app_option
@json_option
def delete(schedule: str, tenant: str | None, by: str | None, app_name: str | None, as_json: bool) -> None:
    """Delete it; its history and the jobs that it made stay."""
    app = load_app(app_name)
    with _on_record(app, "delete", schedule, tenant, by) as (row, _):
        app.schedules.delete(row.schedule_id, row.tenant)
    facts = {"schedule_id": row.schedule_id, "deleted": True}
    tell(as_json, facts, f"Deleted the schedule {row.name}.")


@command.command("import")
@click.option(
    "--from", "source", type=click.Choice(["django-celery-beat"]), required=True, help="Whose schedules."
)
@click.option("--database-url", metavar="URL", help="Where its tables are; by default where ours are.")
@click.option("--dry-run", is_flag=True, help="Write nothing, and say what would come of each.")
@engine_option
@by_option
@app_option
@json_option
def import_(
    source: str,
    database_url: str | None,
    dry_run: bool,
    engine: str | None,
    by: str | None,
    app_name: str | None,
    as_json: bool,
) -> int:
    """Make the schedules of another scheduler ours, by name; a second time, what was changed there.

    Nothing is changed there: stop its beat, so that not both fire. The exit code is 1 when one is refused.
    """
    from jobbridge.app.schedules.django_celery_beat import import_schedules
    from jobbridge.store.database import Database

    app = load_app(app_name)
    database = None if database_url is None else Database(database_url)
    with nullcontext() if dry_run else on_record(app, "import schedules", by=by, subject=source):
        found = import_schedules(app, database=database, engine=engine, is_tried=dry_run)
    if as_json:
        write_json([asdict(each) for each in found])
    else:
        rows = [(each.name, each.task, each.outcome, each.note or "") for each in found]
        tell_table(rows, "schedule", "task", "outcome", "note", empty=f"{source} has no schedules.")
    return 1 if any(each.outcome == "refused" for each in found) else 0


@contextmanager
def _on_record(
    app: Celery, verb: str, schedule: str, tenant: str | None, by: str | None, *, reason: str | None = None
) -> Iterator[tuple[ScheduleRow, Entry]]:
    """Put on record what is done to a schedule inside."""
    row = app.schedules.find(schedule, tenant)
    details = {"schedule_id": str(row.schedule_id)}
    with on_record(
        app, f"{verb} schedule", by=by, tenant=row.tenant, subject=row.name, reason=reason, details=details
    ) as entry:
        yield row, entry


def _tell(app: Celery, schedule: str, tenant: str | None, done: str, *, as_json: bool) -> None:
    row = app.schedules.find(schedule, tenant)
    tell(as_json, _plain(app, row), f"{done} the schedule {row.name}.")


def _show(app: Celery, row: ScheduleRow) -> None:
    told = {
        "schedule": f"{row.name} ({row.schedule_id})",
        "task": row.task,
        "tenant": row.tenant,
        "when": f"{row.spec} in {row.zone}",
        "state": _state(row),
        "engine": row.engine.value,
        "overlap": row.overlap.value,
        "catch-up": f"{row.catchup_seconds} s",
        "jitter": f"{row.jitter_seconds} s",
        "queue": row.queue,
        "priority": row.priority,
        "declared by": row.declared_by,
        "next": ", ".join(map(_instant, app.schedules.upcoming(row))),
    }
    for name, value in told.items():
        if value not in (None, ""):
            click.echo(f"{name:<12} {value}")


def _show_history(history: list[FireRow]) -> None:
    if not history:
        return
    shown = [
        (
            _instant(fire.fire_at), fire.trigger.value,
            Markup(f"[{_OUTCOME_STYLES[fire.outcome]}]{fire.outcome.value}[/]"), str(fire.job_id or ""),
            without_passwords(fire.reason),
        )
        for fire in history
    ]  # fmt: skip
    tell_table(shown, "fire", "trigger", "outcome", "job", "reason", empty="")


def _state(row: ScheduleRow) -> str:
    if row.paused:
        return f"paused: {without_passwords(row.note)}" if row.note else "paused"
    return "active" if row.next_fire_at else "over"


def _instant(at: datetime) -> str:
    return at.isoformat(sep=" ", timespec="seconds")


def _plain(app: Celery, row: ScheduleRow, *, count: int = 1) -> dict[str, Any]:
    return asdict(row) | {"state": _state(row), "upcoming": list(app.schedules.upcoming(row, count=count))}

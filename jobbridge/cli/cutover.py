"""`jobbridge cutover --to|--from` and `jobbridge cutover check`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from jobbridge.cli.app_option import APP_NAME
from jobbridge.cli.audit import by_option, on_record
from jobbridge.cli.common import app_option, json_option, load_app, tell_table, write_json
from jobbridge.cli.failures import FAILED
from jobbridge.core.keys import Engine

if TYPE_CHECKING:
    from jobbridge.cutover.report import Report, Scope

#: Jobs that could not be moved are named one by one, up to so many.
_NAMED = 20
_ENGINES = click.Choice([engine.value for engine in Engine])


@click.group("cutover", invoke_without_command=True)
@click.option("--to", "to", type=_ENGINES, help="The engine that jobs go to.")
@click.option("--from", "source", metavar="URL", help="An old broker: redis://…, amqp://…, sqla+….")
@click.option("--queues", metavar="A,B", help="With --from: only these; all that are found, by default.")
@click.option("--jobs", metavar="PATTERN", help="Only of tasks of such a name, with * and ?.")
@click.option("--tenant", metavar="ID", help="Only this tenant's.")
@click.option("--schedules", is_flag=True, help="Schedules, too.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and move nothing.")
@click.option("--batch", type=click.IntRange(1, 1000), default=100, show_default=True, hidden=True)
@by_option
@app_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    to: str | None,
    source: str | None,
    queues: str | None,
    jobs: str | None,
    tenant: str | None,
    schedules: bool,
    dry_run: bool,
    batch: int,
    by: str | None,
    app_name: str | None,
    as_json: bool,
) -> int | None:
    """Move what waits to the other engine, or from an old broker here.

    Jobs that run end where they are. It may be stopped at any point: run it again, and it goes on. Run the other way,
    it undoes. The exit code is 1 when both sides do not agree at its end.
    """
    if context.invoked_subcommand is not None:
        if app_name is not None:
            context.meta[APP_NAME] = app_name
        return None
    if (to is None) == (source is None):
        raise click.UsageError("Name one of --to and --from.")
    app = load_app(app_name)
    app.loader.import_default_modules()
    if source is not None:
        if jobs or tenant or schedules:
            raise click.UsageError("--jobs, --tenant and --schedules are for --to.")
        return _take_over(app, source, queues, by, dry_run=dry_run, as_json=as_json)
    if queues:
        raise click.UsageError("--queues is for --from.")
    scope = _scope(str(to), jobs, tenant, schedules, batch)
    return _move(app, scope, by, dry_run=dry_run, as_json=as_json)


@command.command("check")
@click.option(
    "--to", "to", type=_ENGINES, help="By default the engine of which there are fewer waiting jobs."
)
@click.option("--jobs", metavar="PATTERN", help="Only of tasks of such a name, with * and ?.")
@click.option("--tenant", metavar="ID", help="Only this tenant's.")
@app_option
@json_option
def check_command(
    to: str | None, jobs: str | None, tenant: str | None, app_name: str | None, as_json: bool
) -> int:
    """Say what will not work on the other engine, and why, before anything is moved.

    The exit code is 1 when jobs would wait there for ever.
    """
    from jobbridge.cutover.check import check, likely_target

    app = load_app(app_name)
    app.loader.import_default_modules()
    target = Engine(to) if to else likely_target(app)
    findings = check(app, _scope(target.value, jobs, tenant, True, 100))
    if as_json:
        write_json({"to": target.value, "findings": [each.to_json() for each in findings]})
    else:
        click.echo(f"To {target.value}:")
        tell_table(
            [(each.level.value, each.what, each.why, each.hint) for each in findings],
            "level", "what", "why", "what to do",
            empty="Nothing is in the way.",
        )  # fmt: skip
    return FAILED if any(each.is_error for each in findings) else 0


def _scope(to: str, jobs: str | None, tenant: str | None, schedules: bool, batch: int) -> Scope:
    from jobbridge.cutover.report import Scope

    return Scope(to=Engine(to), jobs=jobs, tenant=tenant, schedules=schedules, batch=batch)


def _move(app: Any, scope: Scope, by: str | None, *, dry_run: bool, as_json: bool) -> int:
    from jobbridge.cutover.engines.run import plan, run

    if dry_run:
        report = plan(app, scope)
        if as_json:
            told = {"would_move": report.waiting, "staying": report.staying, "schedules": report.schedules}
            write_json(told)
            return 0
        _show_counts(f"Would leave {scope.origin.value}:", report.waiting)
        _show_counts("What stays:", report.staying)
        if scope.schedules:
            click.echo(f"{report.schedules} schedule(s) would go to {scope.to.value}.")
        return 0
    details = {"jobs": scope.jobs, "schedules": scope.schedules}
    with on_record(app, "cutover", by=by, tenant=scope.tenant, subject=scope.to.value, details=details):
        report = run(app, scope)
    _tell(report, scope.origin.value, scope.to.value, as_json=as_json)
    return 0 if report.is_verified else FAILED


def _take_over(
    app: Any, source: str, queues: str | None, by: str | None, *, dry_run: bool, as_json: bool
) -> int:
    from jobbridge.cutover.take_over import take_over

    named = [each.strip() for each in queues.split(",") if each.strip()] if queues else None
    details = {"queues": named}
    with (
        nullcontext()
        if dry_run
        else on_record(app, "take over", by=by, subject=source.partition(":")[0], details=details)
    ):
        report = take_over(app, source, queues=named, is_dry=dry_run)
    _tell(report, "the old broker", Engine.CELERY.value, as_json=as_json)
    return 0 if report.is_verified else FAILED


def _tell(report: Report, origin: str, to: str, *, as_json: bool) -> None:
    if as_json:
        write_json(report.to_json())
        return
    click.echo(f"{report.moved.total()} job(s) went from {origin} to {to}.")
    for status, count in sorted(report.moved.items()):
        click.echo(f"  {count:>7}  {status}")
    if report.schedules:
        click.echo(f"{report.schedules} schedule(s) went.")
    if report.ended:
        click.echo(f"{report.ended} workflow(s) or activities of jobs that went were ended.")
    if report.staying:
        click.echo("What stays:")
        for why, count in sorted(report.staying.items()):
            click.echo(f"  {count:>7}  {why}")
    for name, why in list(report.unreadable.items())[:_NAMED]:
        click.echo(f"{name} stays: {why}.")
    for name, why in report.staying_schedules.items():
        click.echo(f"The schedule {name} stays: {why}.")
    for note in report.notes:
        click.echo(f"Note: {note}")
    for problem in report.problems:
        click.echo(f"Problem: {problem}", err=True)
    if report.is_verified:
        click.echo("Both sides agree.")


def _show_counts(title: str, counts: Mapping[str, int]) -> None:
    click.echo(title)
    for why, count in sorted(counts.items()):
        click.echo(f"  {count:>7}  {why}")

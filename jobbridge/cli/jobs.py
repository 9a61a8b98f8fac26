"""`jobbridge jobs list|show|cancel`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from jobbridge.cli.common import (
    ago,
    app_option,
    console,
    json_option,
    load_app,
    seconds_between,
    styled,
    write_json,
)
from jobbridge.cli.failures import REFUSED
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.errors import JobNotFound

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.rows import JobDetailRow, JobRow


@click.group("jobs")
def command() -> None:
    """List, show and cancel jobs."""


@command.command("list")
@click.option("--tenant", metavar="ID")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice([status.value for status in JobStatus])
)
@click.option("--type", "type_", metavar="NAME", help="The handler's name.")
@click.option("--engine", type=click.Choice([engine.value for engine in Engine]))
@click.option("--queue")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@app_option
@json_option
def list_jobs(
    tenant: str | None,
    statuses: tuple[str, ...],
    type_: str | None,
    engine: str | None,
    queue: str | None,
    limit: int,
    app_name: str | None,
    as_json: bool,
) -> None:
    """List jobs, newest first."""
    from jobbridge.store.jobs import JobFilter

    where = JobFilter(
        tenant=TenantId(tenant) if tenant else None,
        statuses=[JobStatus(status) for status in statuses] or None,
        type=type_,
        engine=Engine(engine) if engine else None,
        queue=queue,
    )
    page = load_app(app_name).jobs.page(where, limit=limit)
    if as_json:
        write_json([_plain(row) for row in page.jobs])
        return
    if not page.jobs:
        click.echo("There are no such jobs.")
        return
    table = Table("job", "type", "engine", "status", "attempts", "seconds", "created", "tenant", box=None)
    for row in page.jobs:
        table.add_row(*_line(row))
    console().print(table)
    if page.next is not None:
        click.echo("There are more; --limit shows more of them.")


@command.command("show")
@click.argument("job_id")
@click.option("--tenant", metavar="ID", help="Only if it is this tenant's.")
@app_option
@json_option
def show(job_id: str, tenant: str | None, app_name: str | None, as_json: bool) -> None:
    """Show one job and its steps. JOB_ID is the id in `jobs`, the Celery task id, or the engine's own id."""
    app = load_app(app_name)
    row = _find(app, job_id, tenant)
    details = app.jobs.details(row.key)
    if as_json:
        write_json(_plain(row) | {"details": [asdict(detail) for detail in details]})
        return
    _show(row, list(details))


@command.command("cancel")
@click.argument("job_id")
@click.option("--tenant", metavar="ID", help="Only if it is this tenant's.")
@click.option("--reason", default=None)
@click.option("--by", "cancelled_by", metavar="NAME", help="Who cancels it.")
@app_option
@json_option
def cancel(
    job_id: str,
    tenant: str | None,
    reason: str | None,
    cancelled_by: str | None,
    app_name: str | None,
    as_json: bool,
) -> int:
    """Cancel a job, waiting or running. The exit code is 5 when it had ended before."""
    app = load_app(app_name)
    row = _find(app, job_id, tenant)
    was_cancelled = app.cancel_job(row.job_id, row.tenant, reason=reason, cancelled_by=cancelled_by)
    status = (app.jobs.get(row.key) or row).status
    if as_json:
        write_json({"job_id": row.job_id, "cancelled": was_cancelled, "status": status.value})
    elif was_cancelled:
        click.echo(f"Cancelled {row.type} {row.job_id}.")
    else:
        click.echo(f"Not cancelled: {row.type} {row.job_id} is {status.value} already.", err=True)
    return 0 if was_cancelled else REFUSED


def _find(app: Celery, text: str, tenant: str | None) -> JobRow:
    from jobbridge.core.keys import job_id_for

    row = app.jobs.find(job_id_for(text)) or app.jobs.find_external(text)
    if row is None or (tenant is not None and row.tenant != tenant):
        raise JobNotFound.with_id(text)
    return row


def _plain(row: JobRow) -> dict[str, Any]:
    fields = asdict(row)
    key = fields.pop("key")
    return {"tenant": key["tenant"], "job_id": key["job_id"], **fields}


def _line(row: JobRow) -> tuple[str, ...]:
    seconds = seconds_between(row.started_at, row.completed_at)
    return (
        str(row.job_id),
        row.type,
        row.runner_type.value,
        styled(row.status),
        str(row.attempt),
        "" if seconds is None else f"{seconds:.2f}",
        ago(row.created_at),
        row.tenant,
    )


def _show(row: JobRow, details: list[JobDetailRow]) -> None:
    out = console()
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(row):
        if value not in (None, "", {}):
            facts.add_row(f"[bold]{name}[/]", value if isinstance(value, str) else str(value))
    out.print(facts)
    if details:
        out.print(_steps(details))
    if row.traceback:
        out.print(row.traceback, markup=False, style="dim")


def _facts(row: JobRow) -> list[tuple[str, Any]]:
    from rich.markup import escape

    return [
        ("job", f"{row.job_id}"),
        ("type", escape(row.type)),
        ("status", styled(row.status)),
        ("engine", row.runner_type.value),
        ("external id", row.external_id),
        ("run id", row.external_run_id),
        ("tenant", escape(row.tenant)),
        ("user", row.user_id),
        ("queue", row.queue),
        ("priority", row.priority or None),
        ("attempts", f"{row.attempt}" + (f" of {row.max_attempts}" if row.max_attempts else "")),
        ("progress", _progress(row)),
        ("created", row.created_at),
        ("run at", row.run_at),
        ("started", row.started_at),
        ("ended", row.completed_at),
        ("worker", row.worker),
        ("cancelled by", row.cancelled_by),
        ("reason", row.cancel_reason),
        ("metadata", escape(json.dumps(row.metadata, default=str)) if row.metadata else None),
        ("result", escape(json.dumps(row.result, default=str)) if row.result is not None else None),
        ("error", f"[red]{escape(row.error)}[/]" if row.error else None),
    ]


def _progress(row: JobRow) -> str | None:
    if row.progress is None:
        return None
    return f"{row.progress:g} %" + (f" {row.progress_message}" if row.progress_message else "")


def _steps(details: list[JobDetailRow]) -> Table:
    table = Table(
        "step", "key", "status", "attempt", "seconds", "error", box=None, title="Steps", title_justify="left"
    )
    for detail in details:
        seconds = seconds_between(detail.created_at, detail.processed_at)
        error = (detail.error or "").splitlines()
        table.add_row(
            detail.step_name,
            detail.step_key or "",
            styled(detail.status),
            str(detail.attempt),
            "" if seconds is None else f"{seconds:.2f}",
            error[0] if error else "",
        )
    return table

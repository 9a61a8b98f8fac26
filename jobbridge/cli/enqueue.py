"""`jobbridge enqueue NAME --data JSON`."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from jobbridge.cli.audit import by_option, on_record
from jobbridge.cli.common import app_option, json_option, load_app, styled, write_json
from jobbridge.cli.failures import FAILED
from jobbridge.cli.follow import changes_of
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.errors import StillRunning

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.jobs.rows import JobRow


def read_data(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """Read an option's JSON; @FILE reads a file."""
    if value is None:
        return None
    try:
        if value.startswith("@"):
            with click.open_file(value[1:]) as file:
                value = file.read()
        return json.loads(value)
    except OSError as error:
        raise click.BadParameter(f"{value[1:]} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise click.BadParameter(f"this is not JSON: {error}") from None


def read_instant(ctx: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """Read an option's instant, with its time zone."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no instant; write it as 2026-01-31T09:00:00+01:00.") from None
    if instant.tzinfo is None:
        raise click.BadParameter(f"{value!r} has no time zone; add Z or an offset such as +01:00.")
    return instant.astimezone(UTC)


@click.command("enqueue")
@click.argument("name")
@click.option(
    "--data", callback=read_data, metavar="JSON", help="The job's data; @FILE reads it, @- from stdin."
)
@click.option("--tenant", metavar="ID", help="Whose job it is; by default the tenantId in the data.")
@click.option(
    "--engine", type=click.Choice([engine.value for engine in Engine]), help="By default as configured."
)
@click.option("--queue", help="By default the handler's.")
@click.option(
    "--run-at", callback=read_instant, metavar="INSTANT", help="Not before: ISO 8601 with a time zone."
)
@click.option("--priority", type=click.IntRange(0, 9), help="Higher first.")
@click.option("--wait", is_flag=True, help="Wait for its end; the exit code is 1 unless it completed.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="How long --wait waits.")
@by_option
@app_option
@json_option
def command(
    name: str,
    data: Any,
    tenant: str | None,
    engine: str | None,
    queue: str | None,
    run_at: datetime | None,
    priority: int | None,
    wait: bool,
    timeout: float | None,
    by: str | None,
    app_name: str | None,
    as_json: bool,
) -> int:
    """Send a job to the handler NAME.

    Example: jobbridge enqueue generate-invoice --data '{"tenantId": "…", …}' --wait
    """
    app = load_app(app_name)
    with on_record(app, "enqueue", by=by, tenant=tenant, details={"task": name}) as entry:
        handle = app.enqueue(
            name, data, tenant=tenant, engine=engine, queue=queue, run_at=run_at, priority=priority
        )
        row = app.jobs.find(handle.job_id)
        entry.subject = str(handle.job_id)
        entry.tenant = entry.tenant if row is None else row.tenant
    if wait and row is not None:
        row = _at_its_end(app, row, timeout)
    outcome = {
        "job_id": handle.job_id,
        "external_id": handle.external_id,
        "runner_type": row.runner_type.value if row else None,
        "status": row.status.value if row else None,
        "result": row.result if row else None,
        "error": row.error if row else None,
    }
    if as_json:
        write_json(outcome)
    elif wait and row is not None:
        _tell_end(row)
    else:
        click.echo(f"Sent {name} as job {handle.job_id} ({outcome['runner_type']}, {outcome['status']}).")
        click.echo(f"Follow it with `jobbridge jobs show {handle.job_id}`.")
    is_good = row is not None and row.status is JobStatus.COMPLETED
    return FAILED if wait and not is_good else 0


def _at_its_end(app: Celery, row: JobRow, timeout: float | None) -> JobRow:
    last = row
    with contextlib.suppress(StillRunning):  # then it is told as it is
        for seen in changes_of(app, row.key, timeout=timeout):
            last = seen
    return last


def _tell_end(row: JobRow) -> None:
    from jobbridge.cli.common import console

    out = console()
    out.print(f"{row.type} {row.job_id}: {styled(row.status)} after {row.attempt} attempt(s)")
    if row.error:
        out.print(row.error, style="red", markup=False)
    elif row.result is not None:
        out.print_json(json.dumps(row.result))

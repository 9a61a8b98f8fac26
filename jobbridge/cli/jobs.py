"""`jobbridge jobs list|show|cancel|retry|watch|recount`, and `jobs dead`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from jobbridge.cli.audit import by_option, on_record
from jobbridge.cli.common import (
    app_option,
    app_option_of_group,
    engine_option,
    json_option,
    load_app,
    tell,
    tell_table,
    tenant_option,
    visible,
    write_json,
    write_line,
)
from jobbridge.cli.dead import dead
from jobbridge.cli.failures import FAILED, REFUSED
from jobbridge.cli.follow import changes_of, told
from jobbridge.cli.jobs_view import line, show_job
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.errors import JobNotFound

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.jobs.rows import JobRow


@click.group("jobs")
@app_option_of_group
def command() -> None:
    """List, show, cancel, retry and watch jobs."""


command.add_command(dead)


@command.command("list")
@click.option("--tenant", metavar="ID")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice([status.value for status in JobStatus])
)
@click.option("--type", "type_", metavar="NAME", help="The handler's name.")
@engine_option
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
    from jobbridge.store.jobs.queries import JobFilter

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
    columns = ("job", "type", "engine", "status", "attempts", "seconds", "created", "tenant")
    tell_table([line(row) for row in page.jobs], *columns, empty="There are no such jobs.")
    if page.next is not None:
        click.echo("There are more; --limit shows more of them.")


@command.command("show")
@click.argument("job_id")
@tenant_option
@app_option
@json_option
def show(job_id: str, tenant: str | None, app_name: str | None, as_json: bool) -> None:
    """Show one job and its steps. JOB_ID is the id in `jobs`, the Celery task id, or the engine's own id."""
    app = load_app(app_name)
    row = find_job(app, job_id, tenant)
    details = app.jobs.details(row.key)
    children = app.fan_outs.counts(row.key)
    if as_json:
        shown = _plain(row) | {"details": [asdict(detail) for detail in details]}
        write_json(shown if children is None else shown | {"children": children.to_json()})
        return
    show_job(row, list(details), children)


@command.command("cancel")
@click.argument("job_id")
@tenant_option
@click.option("--reason", default=None)
@by_option
@click.option("--whole", is_flag=True, help="All that has not ended of its chain, group and chord.")
@app_option
@json_option
def cancel(
    job_id: str,
    tenant: str | None,
    reason: str | None,
    by: str | None,
    whole: bool,
    app_name: str | None,
    as_json: bool,
) -> int:
    """Cancel a job, waiting or running. The exit code is 5 when it had ended before."""
    app = load_app(app_name)
    row = find_job(app, job_id, tenant)
    if whole:
        with on_record(app, "cancel all", by=by, job=row.key, reason=reason) as entry:
            number = _cancel_whole(app, row, reason, by)
            entry.details["cancelled"] = number
        tell(as_json, {"job_id": row.job_id, "cancelled": number}, f"Cancelled {number} jobs of the whole.")
        return 0
    with on_record(app, "cancel", by=by, job=row.key, reason=reason) as entry:
        was_cancelled = app.cancel_job(row.job_id, row.tenant, reason=reason, cancelled_by=by)
        entry.outcome = "done" if was_cancelled else "ended before"
    status = (app.jobs.get(row.key) or row).status
    if as_json:
        write_json({"job_id": row.job_id, "cancelled": was_cancelled, "status": status.value})
    elif was_cancelled:
        click.echo(f"Cancelled {visible(row.type)} {row.job_id}.")
    else:
        click.echo(f"Not cancelled: {visible(row.type)} {row.job_id} is {status.value} already.", err=True)
    return 0 if was_cancelled else REFUSED


def _cancel_whole(app: Celery, row: JobRow, reason: str | None, by: str | None) -> int:
    """Cancel until nothing is open: what runs may end meanwhile, and send what follows."""
    from jobbridge.core.status import OPEN
    from jobbridge.store.fanout.graph import of_whole

    cancelled = 0
    while found := of_whole(app.database, row, sorted(OPEN)):
        for key in found:
            cancelled += app.cancel_job(key.job_id, key.tenant, reason=reason, cancelled_by=by)
    return cancelled


@command.command("retry")
@click.argument("job_id")
@tenant_option
@click.option("--engine", type=click.Choice([engine.value for engine in Engine]), help="By default its own.")
@click.option(
    "--new",
    "as_new",
    is_flag=True,
    help="As a new job with the same data; also what completed or was cancelled.",
)
@click.option(
    "--failed", "only_children", is_flag=True, help="Only those of its children that did not complete."
)
@click.option(
    "--from-step",
    metavar="NAME",
    help="Make this step and what was recorded after it again; also of a job that completed.",
)
@by_option
@app_option
@json_option
def retry(
    job_id: str,
    tenant: str | None,
    engine: str | None,
    as_new: bool,
    only_children: bool,
    from_step: str | None,
    by: str | None,
    app_name: str | None,
    as_json: bool,
) -> None:
    """Run a job again that failed, expired or was skipped. Its finished steps are not run again."""
    app = load_app(app_name)
    row = find_job(app, job_id, tenant)
    if only_children:
        if engine is not None or as_new or from_step is not None:
            raise click.UsageError("--failed goes with neither --engine, --new nor --from-step.")
        with on_record(app, "retry children", by=by, job=row.key) as entry:
            number = app.retry_failed(row.job_id, row.tenant)
            entry.details["children"] = number
        text = f"{number} children of {visible(row.type)} {row.job_id} run again."
        tell(as_json, {"job_id": row.job_id, "children": number}, text)
        return
    if as_new and from_step is not None:
        raise click.UsageError("--new does not go with --from-step: a new job has no steps yet.")
    with on_record(app, "run again" if as_new else "retry", by=by, job=row.key) as entry:
        sent = app.retry_job(row.job_id, row.tenant, engine=engine, as_new=as_new, from_step=from_step)
        entry.details["sent"] = str(sent.job_id)
        if from_step is not None:
            entry.details["from_step"] = from_step
    text = f"Sent {visible(sent.type)} {sent.job_id} again; it is {sent.status.value}."
    tell(as_json, _plain(sent), text)


@command.command("wake")
@click.argument("job_id")
@tenant_option
@by_option
@app_option
@json_option
def wake(job_id: str, tenant: str | None, by: str | None, app_name: str | None, as_json: bool) -> int:
    """Have a job that sleeps go on now. The exit code is 5 when it does not sleep."""
    app = load_app(app_name)
    row = find_job(app, job_id, tenant)
    with on_record(app, "wake", by=by, job=row.key) as entry:
        was_woken = app.wake_job(row.job_id, row.tenant, woken_by=by)
        entry.outcome = "done" if was_woken else "does not sleep"
    status = (app.jobs.get(row.key) or row).status
    if as_json:
        write_json({"job_id": row.job_id, "woken": was_woken, "status": status.value})
    elif was_woken:
        click.echo(f"Woke {visible(row.type)} {row.job_id}.")
    else:
        text = f"Not woken: {visible(row.type)} {row.job_id} is {status.value}, and does not sleep."
        click.echo(text, err=True)
    return 0 if was_woken else REFUSED


@command.command("watch")
@click.argument("job_id")
@tenant_option
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after so long.")
@app_option
@json_option
def watch(job_id: str, tenant: str | None, timeout: float | None, app_name: str | None, as_json: bool) -> int:
    """Follow a job until it ends. The exit code is 0 only if it completed."""
    app = load_app(app_name)
    row = find_job(app, job_id, tenant)
    last = row
    for last in changes_of(app, row.key, timeout=timeout):
        if as_json:
            write_line(_plain(last))
        else:
            click.echo(told(last))
    return 0 if last.status is JobStatus.COMPLETED else FAILED


@command.command("recount")
@app_option
@json_option
def recount(app_name: str | None, as_json: bool) -> None:
    """Count all jobs anew, while everybody goes on.

    The counts follow each change of a job by triggers. What was written without them (a restore with
    --disable-triggers, session_replication_role = replica) is in no count, and may be missing among open jobs and
    failed ones, until this is run.
    """
    from jobbridge.store.counts.recount import recount as recount_all
    from jobbridge.store.jobs.ends import mark_ends

    database = load_app(app_name).database
    database.run(mark_ends)
    cells = database.run(recount_all)
    wrong = f"{cells:,} counts (of a tenant, status and hour) were wrong, and are right now."
    tell(as_json, {"corrected": cells}, f"Counted; {wrong if cells else 'all counts were right.'}")


def find_job(app: Celery, text: str, tenant: str | None) -> JobRow:
    from jobbridge.core.keys import job_id_for

    row = app.jobs.find(job_id_for(text)) or app.jobs.find_external(text)
    if row is None or (tenant is not None and row.tenant != tenant):
        raise JobNotFound.with_id(text)
    return row


def _plain(row: JobRow) -> dict[str, Any]:
    fields = asdict(row)
    key = fields.pop("key")
    return {"tenant": key["tenant"], "job_id": key["job_id"], **fields}

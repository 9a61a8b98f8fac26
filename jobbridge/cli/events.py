"""`jobbridge events send|list|link`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from jobbridge.cli.audit import by_option, on_record
from jobbridge.cli.common import (
    ago,
    app_option,
    app_option_of_group,
    json_option,
    load_app,
    tell,
    tell_table,
    tenant_option,
    write_json,
)
from jobbridge.cli.enqueue import read_data
from jobbridge.cli.jobs import find_job
from jobbridge.core.keys import TenantId
from jobbridge.core.masking.values import masked
from jobbridge.core.signed.event_links import CHOICES

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.waits.queries import SentEvent, Wait

_OUTCOMES = {
    "delivered": "Delivered: a job waited for it, and goes on.",
    "kept": "Kept: nobody waits for it yet. The next wait for it takes it.",
    "repeated": "Repeated: it was sent before, so that nothing was sent now.",
}


@click.group("events")
@app_option_of_group
def command() -> None:
    """Send what jobs wait for, see what was sent, and make links to answer by."""


@command.command("send")
@click.argument("name")
@click.option("--job", "job_id", metavar="ID", help="To this job.")
@click.option("--key", help="To whoever waits for it by this key, now or later.")
@click.option(
    "--payload", callback=read_data, metavar="JSON", help="What the job gets; @FILE reads it, @- from stdin."
)
@click.option("--tenant", metavar="ID", help="Whose job; with --job only if it is this tenant's.")
@click.option("--once", metavar="ID", help="Of two events of this NAME and ID only the first is sent.")
@by_option
@app_option
@json_option
def send(
    name: str,
    job_id: str | None,
    key: str | None,
    payload: Any,
    tenant: str | None,
    once: str | None,
    by: str | None,
    app_name: str | None,
    as_json: bool,
) -> None:
    """Send the event NAME to a job, or to a key. One that comes before the wait is kept; each is delivered once."""
    if (job_id is None) == (key is None):
        raise click.UsageError("Say whom it is for: --job or --key, and not both.")
    app = load_app(app_name)
    row = None if job_id is None else find_job(app, job_id, tenant)
    whose = tenant if row is None else row.tenant
    job = None if row is None else row.key
    told = {"event": name, **({} if key is None else {"key": key})}
    with on_record(app, "send event", by=by, job=job, tenant=whose, subject=key, details=told) as entry:
        outcome = app.send_event(
            name,
            payload,
            job_id=None if row is None else row.job_id,
            key=key,
            tenant=whose,
            once=once,
            sent_by=by,
        )
        entry.outcome = outcome
    tell(as_json, {"name": name, "outcome": outcome}, _OUTCOMES[outcome])


@command.command("list")
@click.option("--job", "job_id", metavar="ID", help="Only those of this job, and what it waits for.")
@click.option(
    "--waiting", is_flag=True, help="The jobs that wait for an event, instead of events that were sent."
)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@tenant_option
@app_option
@json_option
def list_events(
    job_id: str | None, waiting: bool, limit: int, tenant: str | None, app_name: str | None, as_json: bool
) -> None:
    """List the events that were sent, the newest first; or what jobs wait for."""
    from jobbridge.store.waits.queries import WaitQueries

    app = load_app(app_name)
    queries = WaitQueries(app.database)
    row = None if job_id is None else find_job(app, job_id, tenant)
    whose = None if tenant is None else TenantId(tenant)
    if waiting:
        wait = None if row is None else queries.wait_of(row.key)
        waits = queries.waits(whose, limit=limit) if row is None else [wait] if wait is not None else []
        _tell_waits(waits, as_json)
        return
    events = queries.events(whose, limit=limit) if row is None else queries.events_of(row.key, limit=limit)
    _tell_events(app, events, as_json)


@command.command("link")
@click.argument("name")
@click.option("--job", "job_id", metavar="ID", required=True, help="The job that waits for it.")
@click.option(
    "--hours", type=click.FloatRange(0, 24 * 366, min_open=True), default=24.0 * 7, show_default=True
)
@click.option(
    "--choice", "choices", multiple=True, help="An answer; several times. Default: approve, decline."
)
@by_option
@tenant_option
@app_option
@json_option
def link(
    name: str,
    job_id: str,
    hours: float,
    choices: tuple[str, ...],
    by: str | None,
    tenant: str | None,
    app_name: str | None,
    as_json: bool,
) -> None:
    """Make a link to a page on which somebody without an account answers the event NAME, once."""
    app = load_app(app_name)
    row = find_job(app, job_id, tenant)
    lasts = timedelta(hours=hours)
    with on_record(app, "make event link", by=by, job=row.key, details={"event": name}):
        url = app.event_link(
            row.job_id, name, expires_in=lasts, choices=choices or CHOICES, tenant=row.tenant
        )
    tell(as_json, {"url": url}, url)
    if not url.startswith("http") and not as_json:
        click.echo("That is a path of the dashboard's; JOBBRIDGE_DASHBOARD_URL says where that is.", err=True)


def _tell_waits(waits: list[Wait], as_json: bool) -> None:
    if as_json:
        write_json([asdict(each) for each in waits])
        return
    shown = [
        (
            str(each.job_id), each.kind, each.name or "", each.key or "", ago(each.since),
            "" if each.until is None else f"{each.until:%Y-%m-%d %H:%M:%S} UTC", each.tenant,
        )
        for each in waits
    ]  # fmt: skip
    columns = ("job", "waits for", "name", "key", "since", "until", "tenant")
    tell_table(shown, *columns, empty="No job waits for an event.")


def _tell_events(app: Celery, events: list[SentEvent], as_json: bool) -> None:
    if as_json:
        from jobbridge.app.durable.payloads import payload_of

        write_json([asdict(each) | {"payload": masked(payload_of(app, each))} for each in events])
        return
    shown = [
        (
            each.name, str(each.job_id or each.consumed_by or ""), each.key or "", ago(each.sent_at),
            each.sent_by or "", "kept" if each.consumed_at is None else f"taken {ago(each.consumed_at)}",
            each.tenant,
        )
        for each in events
    ]  # fmt: skip
    columns = ("event", "job", "key", "sent", "by", "state", "tenant")
    tell_table(shown, *columns, empty="No events were sent.")

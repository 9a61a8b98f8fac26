"""`jobbridge batches list|show|cancel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    visible,
    write_json,
)
from jobbridge.cli.failures import REFUSED
from jobbridge.core.keys import TenantId
from jobbridge.store.batches.progress import BatchState

if TYPE_CHECKING:
    from jobbridge.store.batches.progress import BatchProgress


@click.group("batches")
@app_option_of_group
def command() -> None:
    """List, show and cancel batches."""


@command.command("list")
@click.option("--tenant", metavar="ID")
@click.option("--state", "states", multiple=True, type=click.Choice([state.value for state in BatchState]))
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@app_option
@json_option
def list_batches(
    tenant: str | None, states: tuple[str, ...], limit: int, app_name: str | None, as_json: bool
) -> None:
    """List batches, newest first, with how far they are."""
    found = load_app(app_name).batches.store.page(
        tenant=TenantId(tenant) if tenant else None,
        states=[BatchState(state) for state in states] or None,
        limit=limit,
    )
    if as_json:
        write_json([batch.to_json() for batch in found])
        return
    rows = [
        (
            str(each.id),
            each.name,
            each.state.value,
            _done(each),
            f"{each.failed:,}",
            ago(each.created_at),
            each.tenant,
        )
        for each in found
    ]
    columns = ("batch", "name", "state", "ended", "failed", "created", "tenant")
    tell_table(rows, *columns, empty="There are no such batches.")


def _done(batch: BatchProgress) -> str:
    return f"{batch.ended:,} of {batch.total:,} ({batch.percent:.0f} %)"


@command.command("show")
@click.argument("batch_id", type=click.UUID)
@app_option
@json_option
def show(batch_id: object, app_name: str | None, as_json: bool) -> None:
    """Show one batch: how it is, and how many of its jobs are in which status."""
    batch = load_app(app_name).batches.open(str(batch_id)).progress()
    statuses = ", ".join(f"{number:,} {status.value}" for status, number in sorted(batch.statuses.items()))
    facts = (
        ("batch", str(batch.id)),
        ("name", visible(batch.name)),
        ("state", batch.state.value),
        ("tenant", visible(batch.tenant)),
        ("jobs", _done(batch) + (f": {statuses}" if statuses else "")),
        ("created", str(batch.created_at)),
        ("sealed", str(batch.sealed_at or "")),
        ("ended", str(batch.ended_at or "")),
        ("reason", visible(batch.reason or "")),
    )
    tell(as_json, batch.to_json(), "\n".join(f"{name:<8} {value}" for name, value in facts if value))


@command.command("cancel")
@click.argument("batch_id", type=click.UUID)
@click.option("--reason", default=None)
@by_option
@app_option
@json_option
def cancel(batch_id: object, reason: str | None, by: str | None, app_name: str | None, as_json: bool) -> int:
    """Cancel the jobs of a batch that have not ended; nothing follows. The exit code is 5 when it had ended before."""
    app = load_app(app_name)
    with on_record(app, "cancel batch", by=by, subject=str(batch_id), reason=reason) as entry:
        batch = app.batches.open(str(batch_id))
        is_new = batch.cancel(reason=reason, cancelled_by=by)
        entry.outcome = "done" if is_new else "ended before"
    progress = batch.progress()
    was = f"Not cancelled: it is {progress.state.value} already."
    tell(
        as_json,
        {"cancelled": is_new, **progress.to_json()},
        f"Cancelled the batch {visible(progress.name)} {progress.id}." if is_new else was,
    )
    return 0 if is_new else REFUSED

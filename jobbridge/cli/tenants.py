"""`jobbridge tenants list|suspend|resume|purge`."""

from __future__ import annotations

from dataclasses import asdict

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
    write_json,
)
from jobbridge.core.keys import SYSTEM_TENANT, TenantId


@click.group("tenants")
@app_option_of_group
def command() -> None:
    """List, suspend, resume and purge tenants."""


@command.command("list")
@click.option("--suspended", "only_suspended", is_flag=True, help="Only those.")
@app_option
@json_option
def list_tenants(only_suspended: bool, app_name: str | None, as_json: bool) -> None:
    """List the tenants that have jobs or are suspended."""
    tenants = [
        tenant
        for tenant in load_app(app_name).tenants.all()
        if tenant.suspended_at is not None or not only_suspended
    ]
    if as_json:
        write_json([asdict(tenant) for tenant in tenants])
        return
    rows = []
    for tenant in tenants:
        name = f"{tenant.tenant} (system)" if tenant.tenant == SYSTEM_TENANT else tenant.tenant
        newest, since = ago(tenant.newest_job_at), ago(tenant.suspended_at)
        rows.append((name, newest, since, tenant.suspended_by or "", tenant.reason or ""))
    columns = ("tenant", "newest job", "suspended", "by", "reason")
    tell_table(rows, *columns, empty="There are no such tenants.")


@command.command("suspend")
@click.argument("tenant")
@click.option("--reason")
@by_option
@app_option
@json_option
def suspend(tenant: str, reason: str | None, by: str | None, app_name: str | None, as_json: bool) -> None:
    """Keep the jobs of TENANT from starting: each becomes `skipped`. What runs already goes on."""
    app = load_app(app_name)
    with on_record(app, "suspend", by=by, tenant=tenant, reason=reason) as entry:
        is_new = app.tenants.suspend(TenantId(tenant), reason=reason, suspended_by=by)
        entry.outcome = "done" if is_new else "was suspended before"
    tell(
        as_json,
        {"tenant": tenant, "suspended": True, "changed": is_new},
        f"Tenant {tenant} is suspended." if is_new else f"Tenant {tenant} was suspended before.",
    )


@command.command("resume")
@click.argument("tenant")
@by_option
@app_option
@json_option
def resume(tenant: str, by: str | None, app_name: str | None, as_json: bool) -> None:
    """Let the jobs of TENANT start again. What was skipped stays so; `jobbridge jobs retry` sends it again."""
    app = load_app(app_name)
    with on_record(app, "resume", by=by, tenant=tenant) as entry:
        was_suspended = app.tenants.resume(TenantId(tenant))
        entry.outcome = "done" if was_suspended else "was not suspended"
    tell(
        as_json,
        {"tenant": tenant, "suspended": False, "changed": was_suspended},
        f"Tenant {tenant} runs again." if was_suspended else f"Tenant {tenant} was not suspended.",
    )


@command.command("purge")
@click.argument("tenant")
@by_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@app_option
@json_option
def purge(tenant: str, by: str | None, yes: bool, app_name: str | None, as_json: bool) -> None:
    """Delete the schedules, jobs and all other rows of TENANT, and keep it suspended."""
    if not yes:
        click.confirm(f"Delete everything of tenant {tenant}?", abort=True, err=True)
    app = load_app(app_name)
    with on_record(app, "purge", by=by, tenant=tenant) as entry:
        purged = app.purge_tenant(tenant, by=by)
        rows = sum(purged.deleted.values())
        entry.details["rows"] = rows
    tell(
        as_json,
        {"tenant": tenant, **asdict(purged)},
        f"Purged tenant {tenant}: {purged.schedules} schedules deleted, {purged.cancelled} jobs cancelled, "
        f"{rows} rows deleted. It stays suspended.",
    )

"""`jobbridge tokens create|list|revoke`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
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
    write_json,
)
from jobbridge.core.access import Role
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import TokenRefused

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.access.tokens import AccessStore, TokenRow

_LONGEST_DAYS = 3660


@click.group("tokens")
@app_option_of_group
def command() -> None:
    """Make, list and revoke the tokens of those who may use the dashboard and its API."""


@command.command("create")
@click.argument("name")
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), default=Role.VIEWER.value, show_default=True
)
@click.option("--tenant", metavar="ID", help="Nothing of other tenants can be seen with it.")
@click.option(
    "--days", type=click.FloatRange(0, _LONGEST_DAYS, min_open=True), help="For so long. Default: for ever."
)
@by_option
@app_option
@json_option
def create(
    name: str,
    role: str,
    tenant: str | None,
    days: float | None,
    by: str | None,
    app_name: str | None,
    as_json: bool,
) -> None:
    """Make a token for NAME and print it: it cannot be shown again."""
    _check(name, tenant)
    app = load_app(app_name)
    with on_record(app, "create token", by=by, subject=name) as entry:
        token, row = _store(app).create(
            name,
            Role(role),
            tenant=None if tenant is None else tenant_named(tenant),
            expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
            created_by=by,
        )
        entry.details |= {"role": row.role.value, "tenant": row.tenant, "token_id": str(row.token_id)}
    if as_json:
        write_json({"token": token, **_plain(row)})
        return
    click.echo(token)
    whom = f"the tenant {row.tenant}" if row.tenant else "all tenants"
    click.echo(f"This is {name}, {row.role.value} of {whom}. Keep it: it is not shown again.", err=True)


@command.command("list")
@app_option
@json_option
def list_tokens(app_name: str | None, as_json: bool) -> None:
    """List all tokens that were made; not the tokens themselves, which nobody has."""
    rows = _store(load_app(app_name)).all()
    if as_json:
        write_json([_plain(row) for row in rows])
        return
    shown = [
        (
            row.name, row.role.value, row.tenant or "all", ago(row.created_at),
            row.created_by or "", ago(row.used_at), _state(row),
        )
        for row in rows
    ]  # fmt: skip
    columns = ("name", "role", "tenant", "made", "by", "used", "state")
    tell_table(shown, *columns, empty="There are no tokens. Make one: `jobbridge tokens create NAME`.")


@command.command("revoke")
@click.argument("name")
@by_option
@app_option
@json_option
def revoke(name: str, by: str | None, app_name: str | None, as_json: bool) -> None:
    """Make the token NAME (or of that id) of no use, at once."""
    app = load_app(app_name)
    with on_record(app, "revoke token", by=by, subject=name):
        if not _store(app).revoke(name):
            raise TokenRefused(
                f"There is no token {name!r} that is of use.", hint="List them with `jobbridge tokens list`."
            )
    tell(as_json, {"name": name, "revoked": True}, f"Revoked {name}.")


def _check(name: str, tenant: str | None) -> None:
    """Refuse what a script's empty variable makes of a command: a token of one tenant must not become one of all."""
    if tenant is not None and not (tenant.strip() and tenant.isprintable()):
        raise TokenRefused(
            f"{tenant!r} is no tenant's name.",
            hint="Name it, or leave out --tenant for a token of all tenants.",
        )
    if not (name.strip() and name.isprintable()):
        raise TokenRefused(f"{name!r} is no name.", hint="Give one that can be read in the audit.")


def _store(app: Celery) -> AccessStore:
    from jobbridge.store.access.tokens import AccessStore

    return AccessStore(app.database)


def _state(row: TokenRow) -> str:
    if row.revoked_at is not None:
        return f"revoked {ago(row.revoked_at)}"
    if row.expires_at is None:
        return "good"
    is_over = row.expires_at <= datetime.now(UTC)
    return f"expired {ago(row.expires_at)}" if is_over else f"good until {row.expires_at:%Y-%m-%d %H:%M} UTC"


def _plain(row: TokenRow) -> dict[str, Any]:
    names = ("token_id", "name", "role", "tenant", "created_by")
    times = ("created_at", "expires_at", "used_at", "revoked_at")
    return {name: getattr(row, name) for name in (*names, *times)}

"""`jobbridge migrate`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from jobbridge.cli.common import json_option, write_json
from jobbridge.errors import ConfigurationError


@click.command("migrate")
@click.option("--database-url", metavar="URL", help="Instead of DATABASE_URL.")
@click.option("--revision", default="heads", show_default=True, help="How far up.")
@click.option(
    "--down", metavar="REVISION", help="Go down to it instead; `base`: give back or drop all tables."
)
@click.option(
    "--lock-timeout", metavar="SECONDS", type=click.FloatRange(min=0.01), default=5.0, show_default=True,
    help="How long to wait for a lock on a table, while others wait behind.",
)  # fmt: skip
@click.option(
    "--row-level-security", type=click.Choice(["on", "off"]),
    help="Let a role see only the rows of the tenant in its app.current_tenant.",
)  # fmt: skip
@click.option(
    "--service-role", "service_roles", metavar="ROLE", multiple=True,
    help="Sees all tenants: the role of the workers. The role that migrates always does.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Also if workers run that it would end, or many jobs are copied.")
@click.option("--distribute", is_flag=True, help="Distribute the tables by tenant, where Citus is.")
@click.option(
    "--partition-by", type=click.Choice(["month", "week", "day"]),
    help="Have the jobs in partitions of that width, which retention drops as a whole (docs/scale.md).",
)  # fmt: skip
@json_option
def command(
    database_url: str | None,
    revision: str,
    down: str | None,
    lock_timeout: float,
    row_level_security: str | None,
    service_roles: tuple[str, ...],
    force: bool,
    distribute: bool,
    partition_by: str | None,
    as_json: bool,
) -> None:
    """Make the tables, or bring them up to this release.

    Safe to run at each start, and by several processes at once: they take turns. Workers of the release before go on
    (docs/upgrading.md). The tables of the original system are
    taken over with their rows (docs/existing-databases.md).
    """
    from jobbridge.store.schema import migrate as migrations
    from jobbridge.store.schema.partition import partition

    if service_roles and row_level_security != "on":
        raise click.UsageError("--service-role goes with --row-level-security on.")
    if down is not None and (row_level_security or distribute or partition_by):
        raise click.UsageError("--down goes alone.")
    if distribute and partition_by:
        raise click.UsageError("--distribute and --partition-by exclude each other.")
    url = _url(database_url)
    limit = timedelta(seconds=lock_timeout)
    before = migrations.current(url)
    if down is not None:
        after = migrations.downgrade(url, down, lock_timeout=limit, ends_workers=force)
    else:
        after = migrations.migrate(url, revision, lock_timeout=limit, ends_older_workers=force)
    done: dict[str, Any] = {"before": before, "after": after}
    if down is None:
        done["older_workers"] = migrations.older_workers(url)
    if row_level_security is not None:
        done["service_roles"] = migrations.set_row_level_security(
            url, is_on=row_level_security == "on", service_roles=service_roles, lock_timeout=limit
        )
    if partition_by is not None:
        done["partitions"] = partition(url, partition_by, also_if_many=force, lock_timeout=limit)
    if distribute:
        done["distributed"] = migrations.distribute(url, lock_timeout=limit)
    if as_json:
        write_json(done)
    else:
        _tell(done)


def _url(given: str | None) -> str:
    from jobbridge.bootstrap import get_settings
    from jobbridge.settings import in_schema

    settings = get_settings()
    url = in_schema(given, settings.database_schema) if given else settings.database_url
    if url is None:
        raise ConfigurationError(
            "No database is configured.",
            hint="Set DATABASE_URL=postgresql://user:password@host/name, or start one with `jobbridge dev`.",
        )
    return url


def _tell(done: dict[str, Any]) -> None:
    before, after = done["before"], done["after"]
    if before == after:
        click.echo(f"The database is up to date: {', '.join(after) or 'nothing of jobbridge is there'}.")
    else:
        click.echo(
            f"Migrated to {', '.join(after) or 'nothing'} (it was at {', '.join(before) or 'nothing'})."
        )
    for worker, is_served in done.get("older_workers", {}).items():
        becomes = "goes on" if is_served else "takes nothing more"
        click.echo(f"A worker of an older release runs, and {becomes}: {worker}.")
    if done.get("service_roles"):
        click.echo(f"Row-level security is on; all tenants are seen by {', '.join(done['service_roles'])}.")
    elif "service_roles" in done:
        click.echo("Row-level security is off.")
    if "partitions" in done:
        click.echo(f"The jobs are in partitions: {', '.join(done['partitions'])}.")
    if "distributed" in done:
        click.echo(
            f"Distributed by tenant: {', '.join(done['distributed']) or 'nothing (no Citus, or done before)'}."
        )

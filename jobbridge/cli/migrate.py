"""`jobbridge migrate`."""

from __future__ import annotations

import click

from jobbridge.cli.common import json_option, write_json
from jobbridge.errors import ConfigurationError


@click.command("migrate")
@click.option("--database-url", metavar="URL", help="Instead of DATABASE_URL.")
@click.option("--revision", default="heads", show_default=True, help="How far up.")
@json_option
def command(database_url: str | None, revision: str, as_json: bool) -> None:
    """Make the tables, or bring them up to this release.

    Safe to run at each start, and by several processes at once: they take turns.
    """
    from jobbridge.bootstrap import get_settings
    from jobbridge.store import migrations

    url = database_url or get_settings().database_url
    if url is None:
        raise ConfigurationError(
            "No database is configured.",
            hint="Set DATABASE_URL=postgresql://user:password@host/name, or start one with `jobbridge dev`.",
        )
    before = migrations.current(url)
    after = migrations.migrate(url, revision)
    if as_json:
        write_json({"before": before, "after": after})
    elif before == after:
        click.echo(f"The database is up to date: {', '.join(after)}.")
    else:
        click.echo(f"Migrated to {', '.join(after)} (it was at {', '.join(before) or 'nothing'}).")

"""`jobbridge dev`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobbridge.cli.common import console
from jobbridge.cli.dashboard import missing_packages
from jobbridge.dev.supervisor import DevOptions, Supervisor
from jobbridge.settings import Settings

_STYLES = {
    "celery worker": "green",
    "celery beat": "yellow",
    "temporal worker": "cyan",
    "dashboard": "magenta",
}


@click.command("dev")
@click.option("-A", "--app", metavar="MODULE", default="jobbridge", show_default=True, envvar="CELERY_APP",
              help="The module of your app, as for `celery -A`.")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path(".jobbridge"),
              show_default=True, help="Where data and logs are kept.")  # fmt: skip
@click.option("--postgres-port", type=click.IntRange(0, 65535), help="Exactly this one; 0: any.")
@click.option("--temporal-port", type=click.IntRange(0, 65535), help="Exactly this one; 0: any.")
@click.option("--temporal-ui-port", type=click.IntRange(0, 65535), help="Exactly this one; 0: any.")
@click.option("--dashboard-port", type=click.IntRange(0, 65535), help="Exactly this one; 0: any.")
@click.option(
    "-c", "--concurrency", type=click.IntRange(1, 64), default=2, show_default=True, help="Of each worker."
)
@click.option("--no-temporal", is_flag=True, help="Postgres alone, as the community edition.")
@click.option("--no-dashboard", is_flag=True, help="Without the dashboard.")
def command(
    app: str,
    folder: Path,
    postgres_port: int | None,
    temporal_port: int | None,
    temporal_ui_port: int | None,
    dashboard_port: int | None,
    concurrency: int,
    no_temporal: bool,
    no_dashboard: bool,
) -> int:
    """Start everything a developer needs, and stop it all with Ctrl-C.

    Postgres (its data stays in the folder), Temporal with its web UI, the tables, celery worker, beat, Temporal
    worker, the dashboard (for this machine, without signing in) and a mail server that writes files. DATABASE_URL,
    TEMPORAL_ADDRESS and SMTP_URL, if set, are used instead of servers of ours. Other commands in this folder find the
    servers while they run.

    A worker that dies is reported and not restarted; when a server dies, everything stops and the exit code is 1.
    """
    from jobbridge.bootstrap import get_settings
    from jobbridge.settings import in_schema
    from jobbridge.store.schema.migrate import migrate

    out = console()
    has_temporalio = importlib.util.find_spec("temporalio") is not None
    if not no_temporal and not has_temporalio:
        out.print(
            "Without Temporal: its extra is not installed (pip install 'jobbridge[temporal]').", markup=False
        )
    missing = missing_packages()
    if not no_dashboard and missing:
        out.print(
            f"Without the dashboard: {', '.join(missing)} is not installed (pip install 'jobbridge[dashboard]').",
            markup=False,
        )
    settings = get_settings()
    options = DevOptions(
        folder=folder,
        app=app,
        database_url=_own(settings, "database_url"),
        temporal_address=_own(settings, "temporal_address"),
        smtp_url=_own(settings, "smtp_url"),
        postgres_port=postgres_port,
        temporal_port=temporal_port,
        temporal_ui_port=temporal_ui_port,
        dashboard_port=dashboard_port,
        concurrency=concurrency,
        with_temporal=has_temporalio and not no_temporal,
        with_dashboard=not missing and not no_dashboard,
    )
    supervisor = Supervisor(
        options=options,
        migrate=lambda url: migrate(in_schema(url, settings.database_schema)),
        tell=lambda text: _tell(out, text),
        show_log=lambda name, line: _show_log(out, name, line),
    )
    return supervisor.run(when_up=lambda: _show_members(out, supervisor))


def _own(settings: Settings, name: str) -> str | None:
    """Give what the developer set, as opposed to a default, or to what another `jobbridge dev` left."""
    source = settings.sources.get(name, "default")
    return getattr(settings, name) if source.startswith(("environment", ".env")) else None


def _tell(out: Console, text: str) -> None:
    out.print(text, style="bold red" if text.startswith("DIED") else "bold", markup=False, soft_wrap=True)


def _show_log(out: Console, name: str, line: str) -> None:
    prefix = Text(f"{name:>15} | ", style=_STYLES.get(name, ""))
    out.print(prefix + Text.from_ansi(line), soft_wrap=True)


def _show_members(out: Console, supervisor: Supervisor) -> None:
    table = Table("what", "pid", "address", box=None, show_edge=False)
    for member in supervisor.members:
        pid = str(member.process.pid) if member.process else ""
        table.add_row(member.name, pid, Text(member.address, overflow="fold"))
    out.print(table)
    if supervisor.dashboard_url:
        out.print(f"Dashboard: {supervisor.dashboard_url}", style="bold", markup=False)
    out.print("Ready. Ctrl-C stops everything.", style="bold green")

"""`jobbridge doctor`."""

from __future__ import annotations

from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from jobbridge.cli.common import app_option, console, json_option, load_app, write_json
from jobbridge.cli.failures import FAILED
from jobbridge.diagnosis.findings import masked

if TYPE_CHECKING:
    from jobbridge.diagnosis.findings import Check
    from jobbridge.settings import Settings

_PACKAGES = ("jobbridge", "celery", "kombu", "temporalio", "psycopg", "sqlalchemy")


@click.command("doctor")
@app_option
@json_option
def command(app_name: str | None, as_json: bool) -> int:
    """Show every setting with its source, and look for what is wrong.

    What cannot be reached, what waits and nobody runs, what is stuck, what went to another engine. The exit
    code is 1 when a check fails.
    """
    from jobbridge.bootstrap import get_settings
    from jobbridge.diagnosis.checks import check_all

    settings = get_settings()
    app = load_app(app_name)
    checks = check_all(app, settings)
    if as_json:
        write_json(
            {
                "settings": _settings(settings),
                "packages": _packages(),
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        _print(settings, checks)
    return 0 if all(check.is_good for check in checks) else FAILED


def _print(settings: Settings, checks: list[Check]) -> None:
    out = console()
    values = Table("setting", "value", "from", box=None)
    for line in _settings(settings):
        values.add_row(line["name"], escape(str(line["value"])), line["source"])
    out.print(values)
    out.print("\n" + ", ".join(f"{name} {version}" for name, version in _packages().items()) + "\n")
    for check in checks:
        mark = "[green]ok[/]  " if check.is_good else "[red]FAIL[/]"
        out.print(f"{mark} {check.name}: {escape(check.found)}")
        if check.hint and not check.is_good:
            out.print(f"     Hint: {escape(check.hint)}")


def _settings(settings: Settings) -> list[dict[str, Any]]:
    return [
        {"name": name, "value": masked(getattr(settings, name)), "source": source}
        | ({"overruled": settings.overruled[name]} if name in settings.overruled else {})
        for name, source in settings.sources.items()
    ]


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found

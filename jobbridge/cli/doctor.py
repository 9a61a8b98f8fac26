"""`jobbridge doctor`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from jobbridge.cli.common import app_option, console, json_option, load_app, write_json
from jobbridge.cli.failures import FAILED
from jobbridge.core.masking.values import without_passwords
from jobbridge.diagnosis.findings import some
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.diagnosis.findings import Check
    from jobbridge.settings import Settings
    from jobbridge.store.workers.workers import WorkerRow

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
    workers = _workers(app)
    if as_json:
        write_json(
            {
                "settings": _settings(settings),
                "packages": _packages(),
                "workers": [_plain(worker) for worker in workers],
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        _print(settings, checks, workers)
    return 0 if all(check.is_good for check in checks) else FAILED


def _print(settings: Settings, checks: list[Check], workers: Sequence[WorkerRow]) -> None:
    out = console()
    values = Table("setting", "value", "from", box=None)
    for line in _settings(settings):
        values.add_row(line["name"], escape(str(line["value"])), line["source"])
    out.print(values)
    out.print("\n" + ", ".join(f"{name} {version}" for name, version in _packages().items()) + "\n")
    if workers:
        out.print(_table_of(workers))
    for check in checks:
        mark = "[green]ok[/]  " if check.is_good else "[red]FAIL[/]"
        out.print(f"{mark} {check.name}: {escape(check.found)}")
        if check.hint and not check.is_good:
            out.print(f"     Hint: {escape(check.hint)}")


def _workers(app: Celery) -> Sequence[WorkerRow]:
    try:
        return app.workers.alive()
    except JobBridgeError:
        return []  # the check of the database says why


def _table_of(workers: Sequence[WorkerRow]) -> Table:
    """Show who runs what: workers, queues and handlers."""
    table = Table("worker", "engine", "queues", "knows", box=None)
    for worker in workers:
        table.add_row(
            escape(worker.name),
            worker.engine.value,
            ", ".join(worker.queues),
            some(list(worker.tasks), limit=12),
        )
    return table


def _plain(worker: WorkerRow) -> dict[str, Any]:
    return asdict(worker) | {"engine": worker.engine.value, "sends_to": worker.sends_to.value}


def _settings(settings: Settings) -> list[dict[str, Any]]:
    shown = []
    for name, source in settings.sources.items():
        line: dict[str, Any] = {
            "name": name,
            "value": _shown(name, getattr(settings, name)),
            "source": source,
        }
        if name in settings.overruled:
            others = settings.overruled[name].items()
            line["overruled"] = {other: _shown(name, value) for other, value in others}
        shown.append(line)
    return shown


def _shown(name: str, value: object) -> str | None:
    """Give a setting without what is secret in it, also where it is written as nobody can read it."""
    from jobbridge.settings import is_secret

    if value is None:
        return None
    if is_secret(name):
        return "**********"
    text = without_passwords(str(value))
    if name == "database_url":
        # What stands between the scheme and the last "@" may be anything; so may what follows `password=`.
        text = re.sub(r"(?s)^([\w.+:]*://)(?:([^:@/]*):)?.*@", r"\1\2:***@", text)
        text = re.sub(r"(?is)(pass\w*\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]*)", r"\1***", text)
    return text


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found

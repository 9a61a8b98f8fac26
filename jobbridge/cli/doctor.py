"""`jobbridge doctor`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata, util
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from jobbridge.cli.common import app_option, console, json_option, load_app, write_json
from jobbridge.cli.failures import FAILED
from jobbridge.core.keys import Engine
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.settings import Settings

_PACKAGES = ("jobbridge", "celery", "kombu", "temporalio", "psycopg", "sqlalchemy")
#: Older ones are history.
_FALLBACKS_SHOWN = timedelta(days=1)
#: One that has ended is no trouble any more after this time.
_FALLBACK_IS_RECENT = timedelta(hours=1)
_PASSWORD = re.compile(r"(://[^:/@]*:)[^@/]*@")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    is_good: bool
    found: str
    hint: str = ""


@click.command("doctor")
@app_option
@json_option
def command(app_name: str | None, as_json: bool) -> int:
    """Show every setting with its source, what can be reached, and which handlers there are.

    The exit code is 1 when a check fails.
    """
    from jobbridge.bootstrap import get_settings

    settings = get_settings()
    app = load_app(app_name)
    checks = [
        _check_database(app),
        _check_broker(app),
        *_check_temporal(settings),
        *_check_fallback(app),
        _check_handlers(app),
    ]
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
        {"name": name, "value": _masked(getattr(settings, name)), "source": source}
        for name, source in settings.sources.items()
    ]


def _masked(value: Any) -> Any:
    return _PASSWORD.sub(r"\1***@", str(value)) if value is not None else None


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _check_database(app: Celery) -> Check:
    try:
        counts = app.jobs.count_by_status()
    except JobBridgeError as error:
        return Check(name="database", is_good=False, found=str(error), hint=error.hint)
    total = sum(counts.values())
    by_status = ", ".join(
        f"{count} {engine.value} {status.value}" for (engine, status), count in counts.items()
    )
    return Check(
        name="database", is_good=True, found=f"migrated; {total} jobs" + (f": {by_status}" if counts else "")
    )


def _check_broker(app: Celery) -> Check:
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            return Check(name="broker", is_good=True, found=connection.as_uri())
    except Exception as error:  # whatever a transport raises, here it is only shown
        return Check(name="broker", is_good=False, found=_masked(error), hint=getattr(error, "hint", ""))


def _check_temporal(settings: Settings) -> list[Check]:
    is_wanted = settings.engine is Engine.TEMPORAL
    if util.find_spec("temporalio") is None:
        return [
            Check(
                name="temporal",
                is_good=not is_wanted,
                found="the extra is not installed",
                hint="Install it with `pip install 'jobbridge[temporal]'`.",
            )
        ]
    if not is_wanted and settings.sources.get("temporal_address") == "default":
        return []  # community edition: nobody expects a Temporal there
    import socket

    host, _, port = settings.temporal_address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        found = f"{settings.temporal_address} cannot be reached: {error}"
        return [Check(name="temporal", is_good=False, found=found, hint="Check TEMPORAL_ADDRESS.")]
    return [Check(name="temporal", is_good=True, found=f"{settings.temporal_address} answers")]


def _check_fallback(app: Celery) -> list[Check]:
    """Look for jobs that Postgres took because Temporal could not be reached."""
    try:
        fallen = app.jobs.fallen_back(within=_FALLBACKS_SHOWN)
    except JobBridgeError:
        return []  # the check of the database says why
    if not fallen:
        return []
    recent = datetime.now(UTC) - _FALLBACK_IS_RECENT
    named = ", ".join(f"{row.key.job_id} ({row.type}, {row.status.value})" for row in fallen[:5])
    more = f" and {len(fallen) - 5} more" if len(fallen) > 5 else ""
    return [
        Check(
            name="fallback",
            is_good=all(row.status.is_final and row.fell_back_at < recent for row in fallen),
            found=f"Postgres took jobs that Temporal could not within the last day: {named}{more}."
            f" Last at {fallen[0].fell_back_at:%H:%M:%S} UTC: {fallen[0].reason}",
            hint="Bring Temporal back; until then, make sure that a `celery worker` serves their queues.",
        )
    ]


def _check_handlers(app: Celery) -> Check:
    try:
        app.loader.import_default_modules()
    except ImportError as error:
        return Check(
            name="handlers",
            is_good=False,
            found=f"a module cannot be imported: {error}",
            hint="Install what it needs.",
        )
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    return Check(name="handlers", is_good=True, found=", ".join(names) or "none are registered")

"""What several commands share: the app option, and how things are shown."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobbridge.cli.app_option import app_option as app_option
from jobbridge.cli.app_option import app_option_of_group as app_option_of_group
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.diagnosis.findings import age
from jobbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

Command = TypeVar("Command", bound=Callable[..., Any])

STATUS_STYLES = {
    JobStatus.COMPLETED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "yellow",
    JobStatus.EXPIRED: "yellow",
    JobStatus.SKIPPED: "yellow",
    JobStatus.PROCESSING: "cyan",
    JobStatus.RETRYING: "magenta",
    JobStatus.WAITING: "blue",
}


def json_option(command: Command) -> Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")(command)


def tenant_option(command: Command) -> Command:
    """Add `--tenant`, for what is looked for by its id."""
    return click.option("--tenant", metavar="ID", help="Only if it is this tenant's.")(command)


def engine_option(command: Command) -> Command:
    """Add `--engine`."""
    return click.option("--engine", type=click.Choice([engine.value for engine in Engine]))(command)


def load_app(name: str | None) -> Celery:
    """Find the app as `celery -A` does.

    Raises:
        ConfigurationError: There is no such module, or its app is not JobBridge's.
    """
    from jobbridge.app.application import Celery

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as Celery's own command does
    if name is None or name == "jobbridge":
        from jobbridge.bootstrap import default_app

        return default_app()
    app = _find_app(name)
    if not isinstance(app, Celery):
        raise ConfigurationError(
            f"The app of {name!r} is made with {type(app).__module__}.{type(app).__qualname__}, which keeps no jobs.",
            hint="Write `from jobbridge import Celery` where it says `from celery import Celery`.",
        )
    return app


def _find_app(name: str) -> Any:
    from celery.app.utils import find_app

    import jobbridge.bootstrap  # noqa: F401  # wires the engines for apps that import the class from elsewhere

    try:
        return find_app(name)
    except ModuleNotFoundError as error:
        if error.name != name and not name.startswith(f"{error.name}."):
            raise ConfigurationError(
                f"The app {name!r} cannot be imported: {error}", hint="Install what it needs."
            ) from error
        raise ConfigurationError(
            f"There is no module {name!r} to find an app in.", hint="Check `-A`, and the folder you are in."
        ) from None
    except AttributeError as error:
        raise ConfigurationError(
            f"No Celery app was found in {name!r}: {error}", hint="Name it: -A module:attribute."
        ) from None


#: What a terminal acts on, or turns the text around it with: C0 but tab and new line, DEL, C1, bidi controls.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Give a text that does nothing to a terminal: names, errors and data are anybody's."""
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Console(Console):
    """Shows texts as they are: neither escape sequences nor `:names:` of emoji do anything."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def console() -> Console:
    """Give a console for stdout; wide enough for ids when it is no terminal."""
    width = None if sys.stdout.isatty() else 160
    return _Console(soft_wrap=False, width=width, highlight=False, emoji=False)


def write_json(value: Any) -> None:
    """Write a value as JSON on stdout; instants as ISO 8601."""
    click.echo(json.dumps(value, indent=2, default=_plain))


def write_line(value: Any) -> None:
    """Write a value as JSON in one line, for programs that read a stream."""
    click.echo(json.dumps(value, default=_plain))
    sys.stdout.flush()


def tell(as_json: bool, facts: Any, text: str) -> None:
    """Write what was done: facts for programs, or a line for people."""
    if as_json:
        write_json(facts)
    else:
        click.echo(text)


class Markup(str):
    """A text in which rich's markup means something; in all others `[temporal]` is what it says."""

    __slots__ = ()


def tell_table(rows: list[tuple[Any, ...]], *columns: str, empty: str) -> None:
    """Show rows in a table; `empty` if there are none. Texts are shown as they are, but for `Markup`."""
    if not rows:
        click.echo(empty)
        return
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text(visible(cell)) if type(cell) is str else cell for cell in row))
    console().print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def styled(status: JobStatus) -> Markup:
    """Give the status with rich's markup."""
    style = STATUS_STYLES.get(status)
    return Markup(f"[{style}]{status.value}[/]" if style else status.value)


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Give the duration in seconds; up to now if it has not ended."""
    if start is None:
        return None
    return round(((end or datetime.now(UTC)) - start).total_seconds(), 3)


def ago(at: datetime | None) -> str:
    """Say how long ago it was, in the largest fitting unit."""
    if at is None:
        return ""
    return f"{age(at)} ago"

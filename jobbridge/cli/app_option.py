"""`-A`: which app a command is for, as Celery's own; it may stand before the command and behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Command = TypeVar("Command", bound=Callable[..., Any])

#: Where the `-A` before a command is kept for it.
APP_NAME = "jobbridge.cli.app"


def app_option(command: Command) -> Command:
    """Add `-A`: as Celery's own, and the shipped app by default. It may also stand before the command."""

    def chosen(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
        is_own = ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        return value if is_own else ctx.meta.get(APP_NAME, value)

    return click.option(
        "-A", "--app", "app_name", metavar="MODULE", envvar="CELERY_APP", callback=chosen,
        help="The module of your app, as for `celery -A`. Default: the handlers that JobBridge ships.",
    )(command)  # fmt: skip


def app_option_of_group(group: Command) -> Command:
    """Let `-A` stand before the command, too, as it does for Celery's."""

    def keep(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta[APP_NAME] = value

    return click.option(
        "-A", "--app", metavar="MODULE", expose_value=False, callback=keep, help="As of the commands."
    )(group)

"""`celery jobbridge …`: the same commands under Celery's own.

Celery imports this for every one of its commands, before it reads `-A` and `-b` (celery 5.7, bin/celery.py). That is
how the broker's URL scheme is known to `celery -b jobbridge+postgresql://… inspect ping`, which imports no app of ours.
It must stay light, and must never break somebody's plain Celery.
"""

from __future__ import annotations

import click

from jobbridge.broker import register

register()


@click.command(
    "jobbridge",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def jobbridge(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Jobs on Postgres and Temporal: `celery jobbridge --help`."""
    from jobbridge.cli.root import run

    app_name = ctx.find_root().params.get("app")  # of `celery -A`
    ctx.exit(run(("-A", app_name, *arguments) if isinstance(app_name, str) else arguments))

"""`jobbridge temporal-worker`: its options are Celery's worker's."""

from __future__ import annotations

import click

from jobbridge.errors import EngineUnavailable


@click.command(
    "temporal-worker",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    """Run jobs that Temporal delivers, in Celery's own worker."""
    try:
        from jobbridge.temporal.worker.worker import main
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "temporalio":
            raise
        raise EngineUnavailable(
            "The Temporal worker needs the package temporalio, which is not installed.",
            hint="Install it with `pip install 'jobbridge[temporal]'`.",
        ) from None
    return main(list(arguments))

"""From an error to what the user reads, and the exit code."""

from __future__ import annotations

import traceback

import click

from jobbridge import errors
from jobbridge.dev.process import DevServerError

FAILED = 1
CONFIGURATION = 3
UNAVAILABLE = 4
REFUSED = 5

_CODES: dict[type[Exception], int] = {
    errors.DatabaseUnavailable: UNAVAILABLE,
    errors.EngineUnavailable: UNAVAILABLE,
    errors.DatabaseError: CONFIGURATION,
    errors.ConfigurationError: CONFIGURATION,
    DevServerError: UNAVAILABLE,
    errors.JobBridgeError: REFUSED,
}


def report(error: Exception, *, is_debug: bool) -> int:
    """Tell the error on stderr, with its hint, and give the exit code.

    A traceback is shown only for what we did not foresee, or when asked for: a user's mistake needs none.
    """
    if is_debug and not isinstance(error, click.ClickException):
        click.echo("".join(traceback.format_exception(error)), err=True)
    if isinstance(error, click.UsageError):
        # Celery puts a `show` of its own in the place of click's, which needs a context of Celery's (bin/celery.py).
        click.UsageError.show(error)
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    code = exit_code(error)
    if code is None:
        if not is_debug:
            click.echo("".join(traceback.format_exception(error)), err=True)
        click.echo(
            f"Error: {type(error).__name__}: {error}\n Hint: This is a bug; please report it.", err=True
        )
        return FAILED
    click.echo(f"Error: {error}", err=True)
    hint = getattr(error, "hint", "")
    # The broker's errors, which Celery prints too, carry the hint in their text.
    if hint and hint not in str(error):
        click.echo(f" Hint: {hint}", err=True)
    return code


def exit_code(error: Exception) -> int | None:
    """Give the exit code for a foreseen error; None for others."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    from jobbridge.broker.errors import BrokerError, NotNow, PublishFailed, SessionLost

    if isinstance(error, (PublishFailed, SessionLost, NotNow)):
        return UNAVAILABLE
    if isinstance(error, BrokerError):
        return CONFIGURATION
    from kombu.exceptions import OperationalError

    return UNAVAILABLE if isinstance(error, OperationalError) else None

"""`jobbridge maintain`."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

import click

from jobbridge.cli.common import app_option, load_app
from jobbridge.errors import DatabaseRefused, DatabaseUnavailable

#: Looked at between two waits, since Python runs signal handlers on the main thread only when that is awake.
_WAIT = 0.5


@click.command("maintain")
@app_option
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
)
def command(app_name: str | None, loglevel: str) -> int:
    """Run the services that look after jobs, until stopped.

    Workers run them too, unless JOB_RUNNER_MAINTENANCE is off. Any number may run: one at a time leads each service.
    """
    from jobbridge.bootstrap import make_maintainer
    from jobbridge.observability.logs import configure
    from jobbridge.postgres.names import identify

    identify("maintainer")
    app = load_app(app_name)
    configure(app.settings.log_format, level=loglevel.upper())
    app.loader.import_default_modules()  # whether a task may run twice is said where it is declared
    try:
        app.database.check_sessions()
        with app.database.connection():
            pass
    except DatabaseRefused:
        raise
    except DatabaseUnavailable as error:
        logging.getLogger(__name__).warning("%s It will be tried again.", error)
    maintainer = make_maintainer(app)
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    maintainer.start()
    click.echo("jobbridge maintain is ready.")
    while not stopped.wait(_WAIT):
        pass
    maintainer.stop()
    return 0

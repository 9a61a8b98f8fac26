"""The application that is upgraded: it runs on the release before and on this one."""

from __future__ import annotations

import os
import time
from pathlib import Path

from jobbridge import Celery, __version__

app = Celery("upgrade")
NOTES = Path(os.environ["UPGRADE_NOTES"])


@app.task(name="upgrade.note")
def note(sender: str) -> str:
    """Leave a line that says who sent the job, which release ran it, and in which process."""
    with (NOTES / str(app.current_worker_task.request.id)).open("a") as file:
        file.write(f"{sender} {__version__} {os.getpid()}\n")
    return __version__


@app.task(name="upgrade.hold")
def hold(sender: str) -> str:
    """Run until the test lets it end."""
    while not (NOTES / "go").exists():
        time.sleep(0.05)
    return note(sender)

"""Send a job now and then until the file `stop` is there; or one job, by the task's name, and say its id."""

from __future__ import annotations

import sys
import time

from upgrade_app import NOTES, app

from jobbridge import __version__

if len(sys.argv) == 2:
    print(app.tasks[sys.argv[1]].delay(__version__).id)
else:
    while not (NOTES / "stop").exists():
        sent = app.tasks["upgrade.note"].delay(__version__)
        with (NOTES / f"sent-{__version__}").open("a") as file:
            file.write(f"{sent.id}\n")
        time.sleep(0.7)  # slower than children are forked, one for each job

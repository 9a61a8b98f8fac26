"""Tasks that take their process, or their whole worker, with them; two deliveries are all that there are."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from tests.parity.tasks import make_app, note, wait_for_file

app = make_app()
if "JOB_RUNNER_MAX_CRASHES" not in os.environ:
    app.conf.broker_transport_options = {"max_deliveries": int(os.environ.get("DEADLY_DELIVERIES", "2"))}
app.conf.worker_lost_wait = 0.1


@app.task(name="deadly.kills_its_worker")
def kills_its_worker() -> None:
    if note("began") == 1:
        wait_for_file("go")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@app.task(name="deadly.bystander")
def bystander() -> int:
    if note("began") == 1:
        wait_for_file("go")
    return note("done")


@app.task(name="deadly.quick")
def quick() -> int:
    return note("done")


@app.task(name="deadly.exits")
def exits() -> None:
    sys.exit(7)


@app.task(name="deadly.exits_hard")
def exits_hard() -> None:
    os._exit(9)


@app.task(name="deadly.crashes")
def crashes() -> None:
    ctypes.string_at(0)


@app.task(name="deadly.kills_whoever_runs_it")
def kills_whoever_runs_it(beside: str) -> None:
    """Kill the worker, the first four times when that other job runs beside it."""
    if (tries := note("began")) < 5:
        other = Path(os.environ["PARITY_FOLDER"]) / beside / "began"
        while not other.exists() or len(other.read_text().splitlines()) < tries:
            time.sleep(0.02)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@app.task(name="deadly.innocent")
def innocent() -> int:
    """Run until it is alone: with its fifth attempt."""
    if (tries := note("began")) < 5:
        wait_for_file("go")
    return tries

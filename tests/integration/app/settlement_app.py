"""What the workers of the settlement's tests serve."""

from __future__ import annotations

import os
from typing import Any

from celery import signals

from tests.parity.tasks import make_app, note, wait_for_file

app = make_app(include=["tests.parity.tasks"])


@app.task(name="settled.short")
def short() -> int:
    return note("short")


@app.task(name="settled.untracked", track=False)
def untracked(value: int) -> int:
    return value + 1


@app.task(name="settled.untracked_retries", track=False, bind=True, max_retries=3, default_retry_delay=0)
def untracked_retries(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry()
    return int(self.request.retries)


@app.task(name="settled.fails", acks_late=True)
def fails() -> None:
    note("fails")
    raise ValueError("It fails.")


@app.task(name="settled.dies_at_the_end", bind=True)
def dies_at_the_end(self: Any) -> int:
    """End well; the first time, the process dies before its parent has heard."""
    return note("dies_at_the_end")


@app.task(name="settled.long")
def long() -> int:
    note("long.began")
    wait_for_file("go")
    return note("long.done")


@signals.task_success.connect(weak=False)
def _die(sender: Any = None, result: Any = None, **_: Any) -> None:
    if sender.name == "settled.dies_at_the_end" and result == 1:
        os.kill(os.getpid(), 9)

"""What the workers of the watchdog's tests serve: commands that stop the worker's loop, as faults do."""

from __future__ import annotations

import os
import threading
from typing import Any

from celery.worker.control import control_command

from jobbridge.core.keys import Engine
from tests.parity.tasks import make_app

app = make_app(include=["tests.parity.tasks"])
app.conf.jobbridge_worker_stuck_after = float(os.environ["STUCK_AFTER"])


class Broken(BaseException):
    """What nobody between here and the end of the main thread handles."""


@control_command()  # type: ignore[untyped-decorator,unused-ignore]  # celery's
def hang_loop(state: Any) -> None:
    """Never come back, on the thread of the loop."""
    threading.Event().wait()


@control_command()  # type: ignore[untyped-decorator,unused-ignore]  # celery's
def hang_temporal(state: Any) -> None:
    """Have the thread of Temporal's client never come back."""
    client = state.app._deliveries[Engine.TEMPORAL].client
    client.loop.call_soon_threadsafe(threading.Event().wait)


@control_command()  # type: ignore[untyped-decorator,unused-ignore]  # celery's
def end_loop(state: Any) -> None:
    """End the main thread, while another one keeps the process alive."""
    threading.Thread(target=threading.Event().wait, name="keeps the process").start()
    raise Broken

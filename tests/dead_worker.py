"""A worker that is on the list, and gone: its process was killed."""

from __future__ import annotations

import os
import signal

from jobbridge import Celery
from jobbridge.app.worker.presence import Presence
from jobbridge.core.keys import Engine
from jobbridge.postgres.presence import ask
from tests.support import wait_until


def dead_worker(app: Celery, *, name: str = "dead@here", engine: Engine = Engine.CELERY) -> int:
    """Register a worker in a process of its own and kill that; gives the worker's number."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        presence = Presence(app, name=name, engine=engine)
        if presence.open():
            os.write(writer, str(presence.number).encode())
        signal.pause()
    number = int(os.read(reader, 32))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    with app.database.connection() as own:
        wait_until(lambda: ask(own, [number]), message="the server ended its session")
    return number

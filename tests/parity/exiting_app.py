"""An app whose workers look after their pool only when they are told to, and can be told too early."""

from __future__ import annotations

from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.worker.control import control_command

import tests.parity.tasks
from tests.parity.tasks import make_app

__all__ = ["tests"]

app = make_app()
#: Celery looks every five seconds as well.
AsynPool.timers = property(lambda self: {self.maintain_pool: 3600.0})  # type: ignore[assignment, misc]


@control_command()  # type: ignore[untyped-decorator]  # Celery's has no types
def see_closed_descriptors(state: Any) -> str:
    """Do what the loop does when a process has closed its descriptors, which here is alive still."""
    pool = state.consumer.pool._pool
    for process in list(pool._pool):
        pool._event_process_exit(state.consumer.hub, process)
    return "seen"

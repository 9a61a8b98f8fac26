"""An app whose workers can be brought into the moment between a process's exit and its being reaped."""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

import tests.parity.tasks
from tests.parity.tasks import make_app

__all__ = ["tests"]

app = make_app()


@control_command()  # type: ignore[untyped-decorator]  # Celery's has no types
def see_exits(state: Any) -> str:
    """Do what the loop does when a process has exited: watch it no more. It is reaped a moment later."""
    pool = state.consumer.pool._pool
    for process in pool._pool:
        pool._untrack_child_process(process, state.consumer.hub)
    return "seen"

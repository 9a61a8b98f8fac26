"""What the workers of `tests.bench.budget` serve: a task that does nothing, tracked and not."""

from __future__ import annotations

import os
from typing import Any

import celery

from jobbridge import Celery
from jobbridge.app.execute import carried

WARM, MEASURED = "warm", "measured"  # queues


def make_tracked(**options: Any) -> Celery:
    """Make an app whose jobs have rows; its engine and its servers are the environment's, or `settings=`."""
    app = Celery("budget", **options)
    _add_task(app)
    return app


def make_plain(broker_url: str) -> celery.Celery:
    """Make an app of plain Celery that uses the broker and nothing else."""
    app = celery.Celery("plain", broker=broker_url)
    # As the tracked one, so that what differs is the tracking alone.
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, task_ignore_result=True)
    _add_task(app)
    return app


def _add_task(app: Any) -> None:
    @app.task(name="nothing", shared=False)
    def nothing() -> None:
        pass

    @app.task(name="total", shared=False)
    def total(values: list[object]) -> int:
        return len(values)


def __getattr__(name: str) -> Any:
    """Make the app that `-A tests.bench.budget_apps:NAME` asks for."""
    if name == "tracked":
        # On a busy machine jobs wait longer for their process, and look at their rows once more. How busy the machine
        # is is not what is counted here.
        carried.LATE = 3600.0
        return make_tracked()
    if name == "plain":
        return make_plain(os.environ["BUDGET_BROKER"])
    raise AttributeError(name)

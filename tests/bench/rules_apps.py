"""What the workers of `tests.bench.rules` serve: tasks that do little, under rules across the fleet."""

from __future__ import annotations

import time
from typing import Any

from jobbridge import Celery


def make_app(**options: Any) -> Celery:
    app = Celery("rules", **options)

    @app.task(name="limited", shared=False, concurrency=3)
    def limited() -> None:
        pass

    @app.task(name="paced", shared=False, rate_limit={"limit": "100/s"})
    def paced() -> None:
        pass

    @app.task(name="taken", shared=False)
    def taken(seconds: float) -> None:
        time.sleep(seconds)  # the work

    @app.task(name="one", shared=False, concurrency=1)
    def one(seconds: float) -> None:
        time.sleep(seconds)  # the work

    @app.task(name="slow", shared=False, rate_limit={"limit": "10/s"})
    def slow() -> None:
        pass

    return app


def __getattr__(name: str) -> Any:
    """Make the app that `-A tests.bench.rules_apps:app` asks for."""
    if name == "app":
        return make_app()
    raise AttributeError(name)

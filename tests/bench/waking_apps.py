"""What the workers of `tests.bench.waking` serve: a task that sleeps, one that waits, and a ledger of who went on."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from jobbridge import Celery, current_job


def make_app(**options: Any) -> Celery:
    app = Celery("waking", **options)

    @app.task(name="sleeps", shared=False)
    def sleeps(until: str) -> None:
        ctx = current_job()
        ctx.sleep_until(datetime.fromisoformat(until))
        _note(str(ctx.job_id))

    @app.task(name="waits", shared=False)
    def waits(until: str) -> None:
        ctx = current_job()
        span = datetime.fromisoformat(until) - datetime.now().astimezone()
        ctx.wait_for("approval", timeout=ctx.run("span", lambda: max(span.total_seconds(), 0.1)))
        _note(str(ctx.job_id))

    return app


def _note(line: str) -> None:
    """Add a line to the ledger, at once: what was noted twice ran twice."""
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, f"{line}\n".encode())
    finally:
        os.close(ledger)


def __getattr__(name: str) -> Any:
    """Make the app that `-A tests.bench.waking_apps:app` asks for."""
    if name == "app":
        return make_app()
    raise AttributeError(name)

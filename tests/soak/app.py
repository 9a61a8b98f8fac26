"""What the workers of the soak serve. Each task notes its begin and end in a file, out of reach of any outage."""

from __future__ import annotations

import os
import time
from typing import Any

from jobbridge import Celery


def note(word: str, task_id: str, retries: int = 0) -> None:
    """Append a line; short ones are written whole, whoever else writes."""
    line = f"{word} {task_id} {retries} {time.time():.4f} {os.getpid()}\n"
    file = os.open(os.environ["SOAK_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def make_app(**options: Any) -> Celery:
    app = Celery("soak", **options)
    app.conf.worker_hijack_root_logger = False

    def works(self: Any, seconds: float) -> None:
        note("begin", self.request.id, self.request.retries)
        time.sleep(seconds)  # the work

    @app.task(name="plain", bind=True)
    def plain(self: Any, seconds: float = 0.0) -> str:
        works(self, seconds)
        note("end", self.request.id, self.request.retries)
        return "done"

    @app.task(name="again", bind=True, max_retries=5)
    def again(self: Any, times: int, seconds: float = 0.0) -> int:
        works(self, seconds)
        if self.request.retries < times:
            raise self.retry(countdown=self.request.retries)
        note("end", self.request.id, self.request.retries)
        return times

    @app.task(name="link", bind=True)
    def link(self: Any, value: int) -> int:
        works(self, 0.0)
        note("end", self.request.id)
        return value + 1

    @app.task(name="body", bind=True)
    def body(self: Any, values: list[int]) -> int:
        works(self, 0.0)
        note("end", self.request.id)
        return sum(values)

    return app


def __getattr__(name: str) -> Any:
    if name == "app":
        return make_app()
    raise AttributeError(name)

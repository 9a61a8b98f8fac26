"""The Celery app of that Django project."""

from __future__ import annotations

from typing import Any

from jobbridge import Celery

app = Celery("strangers_django")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(name="strangers.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="strangers.fail")
def fail() -> None:
    raise ValueError("no")


@app.task(name="strangers.total")
def total(values: list[int]) -> int:
    return sum(values)


@app.task(name="strangers.again", bind=True, max_retries=2)
def again(self: Any) -> int:
    if self.request.retries == 0:
        self.retry(countdown=0)
    return int(self.request.retries)

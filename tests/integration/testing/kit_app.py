"""The application of a project that uses the kit."""

from __future__ import annotations

from typing import Any

from celery import chord

from jobbridge import Celery, JobContext, RetryPolicy, job

app = Celery("kit", set_as_current=False)
runs: list[tuple[Any, ...]] = []


@app.task
def add(x: int, y: int) -> int:
    runs.append(("add", x, y))
    return x + y


@app.task
def total(values: list[int]) -> int:
    return sum(values)


@app.task
def broken(text: str = "no") -> None:
    raise ValueError(text)


@app.task(autoretry_for=(ConnectionError,), retry_backoff=60, retry_jitter=False, max_retries=3)
def call(address: str) -> str:
    runs.append(("call", address))
    return f"called {address}"


@app.task
def parent(number: int) -> None:
    runs.append(("parent", number))
    add.delay(number, number)


@app.task
def tick() -> None:
    runs.append(("tick",))


@job("kit.invoice", retry=RetryPolicy(max_attempts=2))
def invoice(ctx: JobContext, data: dict[str, Any]) -> dict[str, Any]:
    runs.append(("invoice", ctx.attempt))
    return {"sent": data["number"]}


def canvas() -> Any:
    return (chord([add.s(1, 1), add.s(2, 2)], total.s()) | add.s(10)).delay()

"""Tasks that write a ledger: of each run when it began, by the task's own id."""

from __future__ import annotations

import threading
import time
from typing import Any

from celery import chain, chord, group, shared_task

from jobbridge import JobContext, RetryPolicy, job
from tests.parity.tasks import note


def _began(job_id: str) -> None:
    note(f"run.{job_id}", repr(time.time()))


@shared_task(name="parity.mixed", bind=True)
def mixed(self: Any, value: int, seconds: float = 0.0) -> int:
    _began(self.request.id)
    threading.Event().wait(seconds)
    return value


@shared_task(name="parity.mixed_early", bind=True, acks_late=False)
def mixed_early(self: Any, value: int, seconds: float = 0.0) -> int:
    """Must not run twice."""
    _began(self.request.id)
    threading.Event().wait(seconds)
    return value


@shared_task(name="parity.mixed_sum", bind=True)
def mixed_sum(self: Any, values: list[int]) -> int:
    _began(self.request.id)
    return sum(values)


@shared_task(name="parity.mixed_fails", bind=True)
def mixed_fails(self: Any) -> None:
    _began(self.request.id)
    raise ValueError("on purpose")


@shared_task(name="parity.mixed_retries", bind=True, max_retries=9)
def mixed_retries(self: Any, value: int) -> int:
    _began(self.request.id)
    if self.request.retries < 2:
        raise self.retry(countdown=0.5)
    return value


@job("parity.mixed_child", retry=RetryPolicy(max_attempts=1))
def mixed_child(ctx: JobContext, data: dict[str, Any]) -> int:
    _began(ctx.job_id)
    return int(data["number"])


@job("parity.mixed_parent", retry=RetryPolicy(max_attempts=1))
def mixed_parent(ctx: JobContext, data: dict[str, Any]) -> Any:
    _began(ctx.job_id)
    return ctx.fan_out("parity.mixed_child", [{"number": number} for number in range(data["children"])])


def send(number: int) -> Any:
    """Send one of a mixture; what it gives, if it gives anything, is `expected(number)`."""
    light = {"temporal_light": number // 10 % 2 == 0}
    match number % 10:
        case 0:
            return mixed.apply_async((number, 0.3), **light)
        case 1:
            return mixed.apply_async((number,), countdown=number % 17, **light)
        case 2:
            return mixed_early.apply_async((number, 0.1), **light)
        case 3:
            return mixed_fails.apply_async(**light)
        case 4:
            return mixed_retries.apply_async((number,), **light)
        case 5:
            return chain(mixed.si(1), mixed.si(number)).apply_async()
        case 6:
            return chord([mixed.s(number), mixed.s(1)], mixed_sum.s()).apply_async()
        case 7:
            return group(mixed.s(number), mixed.s(number)).apply_async()
        case 8:
            return mixed_parent.apply_async(({"children": 3},), **light)
    return mixed.apply_async((number,), link=mixed.si(number), **light)


def expected(number: int) -> Any:
    """What its result is; None: it fails, or is none of its own."""
    match number % 10:
        case 3 | 8:
            return None
        case 6:
            return number + 1
        case 7:
            return [number, number]
    return number

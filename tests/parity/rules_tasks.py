"""Tasks under rules across the fleet."""

from __future__ import annotations

import time
from typing import Any

from celery import shared_task

from jobbridge import JobContext, job
from tests.parity.tasks import note, wait_for_file


def let_go(world: Any, result: Any, name: str = "go") -> None:
    """Let a job end, also one that has not begun."""
    (world.folder / str(result)).mkdir(exist_ok=True)
    world.release(result, name)


@shared_task(name="parity.two_at_once", concurrency=2)
def two_at_once(name: str) -> str:
    note("begun", name)
    wait_for_file("go")
    return name


@shared_task(name="parity.per_customer", concurrency={"limit": 1, "key": "{customer}"})
def per_customer(customer: str, number: int = 0) -> str:
    note("begun", customer)
    wait_for_file("go")
    return customer


@job("parity.paced", rate_limit="20/s", concurrency={"limit": 100, "per": "tenant"})
def paced(ctx: JobContext, data: dict[str, Any]) -> float:
    return time.time()


@shared_task(name="parity.once", bind=True, unique={"by": ["value"]}, max_retries=1)
def once(self: Any, value: int, note: str = "") -> int:
    if self.request.retries == 0:
        raise self.retry(countdown=0.1)
    return int(self.request.retries) + 1


@shared_task(name="parity.settable")
def settable() -> None:
    note("begun")
    wait_for_file("go")


@shared_task(name="parity.three", concurrency=3)
def three() -> None:
    time.sleep(0.01)  # the work

"""Tasks that are coroutines, and one that coroutines follow."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from jobbridge import JobContext, RetryPolicy, job
from tests.parity.tasks import add, note, wait_for_file


@shared_task(name="parity.async_add")
async def async_add(x: int, y: int) -> list[Any]:
    """Give the sum, and what tells this event loop from others."""
    await asyncio.sleep(0)
    return [x + y, os.getpid(), threading.get_ident(), id(asyncio.get_running_loop())]


@shared_task(
    name="parity.async_flaky",
    bind=True,
    autoretry_for=(ConnectionError,),
    retry_backoff=False,
    default_retry_delay=0,
)
async def async_flaky(self: Any) -> list[Any]:
    await asyncio.sleep(0)
    if self.request.retries < 1:
        raise ConnectionError("once")
    sent = await add.adelay(1, 2)
    return [self.request.retries, sent.id]


@job("parity.stepwise", retry=RetryPolicy(max_attempts=1))
def stepwise(ctx: JobContext, data: dict[str, Any]) -> None:
    """Say how far it is, and go on when somebody has seen it."""
    note("stepwise.started")
    for number in range(data["steps"]):
        ctx.progress(number, data["steps"], f"part {number}")
        wait_for_file(f"seen part {number}", timeout=20)


async def _sleeps(name: str) -> None:
    try:
        await asyncio.sleep(240)
    except asyncio.CancelledError as error:
        note(name, type(error).__name__)
        raise
    finally:
        await asyncio.sleep(0.05)
        note(f"{name}_cleaned")


@shared_task(name="parity.async_sleeper", soft_time_limit=120)
async def async_sleeper() -> None:
    """Sleep, in itself and in tasks that it has begun."""
    note("began")
    left = asyncio.create_task(_sleeps("left_behind"))
    async with asyncio.TaskGroup() as group:
        group.create_task(_sleeps("child"))
        await _sleeps("own")
    await left


@shared_task(name="parity.async_limited", soft_time_limit=1)
async def async_limited(catches: bool) -> str:
    try:
        await _sleeps("own")
    except SoftTimeLimitExceeded:
        if catches:
            return "caught"
        raise
    return "never"


@shared_task(name="parity.async_limited_group", soft_time_limit=1)
async def async_limited_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_sleeps("child"))

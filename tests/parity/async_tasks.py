"""Tasks that are coroutines."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from tests.parity.tasks import add, note


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

"""The durable calls for coroutines: what asks Postgres does so in a thread, and the loop goes on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from jobbridge.app.durable.calls import Calls
from jobbridge.app.durable.eager import EagerCalls
from jobbridge.core.retry import RetryPolicy


class AwaitedCalls:
    """The same calls, awaited.

    Args:
        calls: Those of the job.
    """

    def __init__(self, calls: Calls | EagerCalls) -> None:
        self._calls = calls

    async def run(
        self,
        name: str,
        fn: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        retry: RetryPolicy | None,
        key: str | None,
    ) -> Any:
        calls = self._calls
        if isinstance(calls, EagerCalls):
            value = calls.run(name, fn, args, kwargs, retry=retry, key=key)
            return await value if inspect.isawaitable(value) else value
        step = await self._in_thread(calls.begin_run, name, retry, key)
        if step.is_done:
            return step.value
        while True:
            try:
                if inspect.iscoroutinefunction(fn):
                    value = await fn(*args, **kwargs)
                else:
                    value = await asyncio.to_thread(fn, *args, **kwargs)
                    value = await value if inspect.isawaitable(value) else value
            except Exception as error:
                pause = await asyncio.to_thread(calls.fail_run, step, error)
                await asyncio.sleep(pause.total_seconds())
            else:
                return await asyncio.to_thread(calls.end_run, step, value)

    async def _in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        """Make a call; of several that are awaited at once, none is the first."""
        recorded = self._calls.recorded if isinstance(self._calls, Calls) else None
        if recorded is None:
            return call(*args)
        recorded.under_way += 1
        try:
            await asyncio.sleep(0)  # what was created with it begins
            recorded.is_concurrent = recorded.is_concurrent or recorded.under_way > 1
            return await asyncio.to_thread(call, *args)
        finally:
            recorded.under_way -= 1

    async def sleep(self, span: float | timedelta) -> None:
        await self._in_thread(self._calls.sleep, span)

    async def sleep_until(self, at: datetime) -> None:
        await self._in_thread(self._calls.sleep_until, at)

    async def wait_for(
        self, name: str, timeout: float | timedelta | None, key: str | None, default: Any
    ) -> Any:
        return await self._in_thread(self._calls.wait_for, name, timeout, key, default)

    async def call(self, task: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return await self._in_thread(self._calls.call, task, args, kwargs)

    async def gather(self, signatures: Sequence[Any]) -> list[Any]:
        results: list[Any] = await self._in_thread(self._calls.gather, signatures)
        return results

    async def version(self, name: str, number: int) -> int:
        known: int = await self._in_thread(self._calls.version, name, number)
        return known

    async def on_failure(self, undo: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        await self._in_thread(self._calls.on_failure, undo, args, kwargs)

"""Sending and waiting from asyncio: thin `a…` methods over what synchronous callers use.

The code is the same, statement for statement; where it waits for Postgres or Temporal, the running loop turns
(`jobbridge.postgres.on_loop`). See docs/async.md for its limits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from celery import canvas
from celery._state import _task_stack, get_current_worker_task  # type: ignore[attr-defined]  # missing in the stubs
from celery.result import EagerResult

from jobbridge.postgres import on_loop

P = ParamSpec("P")
Value = TypeVar("Value")


class Sending:
    """What tasks and signatures get."""

    apply_async: Callable[..., Any]

    async def adelay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it as `delay` does, from a coroutine."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send it as `apply_async` does, from a coroutine.

        Raises:
            asyncio.CancelledError: Whether it was sent is unknown; sent again with the same `task_id`, it is one job.
        """
        return await on_loop.run(in_job(partial(self.apply_async, args or (), kwargs, **options)))


def in_job(function: Callable[P, Value]) -> Callable[P, Value]:
    """Give the function as one that knows, in a greenlet of its own, in which job it is called.

    Celery keeps that for each greenlet where greenlet is installed (celery 5.7, utils/threads.py).
    """
    task: Any = get_current_worker_task()
    if not task:
        return function
    request, tasks = task.request_stack.top, _task_stack

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> Value:
        tasks.push(task)
        task.request_stack.push(request)
        try:
            return function(*args, **kwargs)
        finally:
            task.request_stack.pop()
            tasks.pop()

    return called


async def _aget(self: Any, timeout: float | None = None, propagate: bool = True) -> Any:
    """Give what an eager task returned; it has run already."""
    return self.get(timeout=timeout, propagate=propagate)


def send_signatures_from_loops() -> None:
    """Give Celery's signatures (and eager results) the methods that tasks have. Calling it again changes nothing."""
    signature: Any = canvas.Signature
    signature.adelay, signature.aapply_async = Sending.adelay, Sending.aapply_async
    eager: Any = EagerResult
    eager.aget = _aget

"""Results for coroutines: `aget`, and the progress of a job as it goes on; and the app's part of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeVar

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, assert_will_not_block  # type: ignore[attr-defined]  # missing in the stubs
from celery.utils.imports import symbol_by_name

from jobbridge.app.loops.submission import in_job
from jobbridge.app.results.follower import Follower
from jobbridge.app.results.loop_listener import LoopListener
from jobbridge.core.keys import job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.postgres import on_loop

P = ParamSpec("P")
Value = TypeVar("Value")

_Base: Any = AsyncResult  # the stubs leave out what is used here


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        percent: 0 to 100, if it has said so.
        attempt: 1-based; 0: none has begun.
    """

    status: JobStatus
    percent: float | None
    message: str | None
    attempt: int


class AsyncSingle(_Base):  # type: ignore[misc]  # see _Base
    """The result of one job."""

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> Any:
        """Wait for the job's end and give what it returned; raises what it raised. As `get` does.

        Cancelled, it leaves nothing behind. Any number of callers on a loop share one connection that is told of ends.

        Args:
            timeout: Seconds.
            propagate: False: give the exception instead of raising it.

        Raises:
            celery.exceptions.TimeoutError: It had not ended after `timeout` seconds.
        """
        if self.ignored:
            return None
        assert_will_not_block()
        if not self._cache:
            try:
                async with asyncio.timeout(timeout) as limit:
                    await self._await_end(propagate)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise CeleryTimeoutError("The operation timed out.") from error
        if propagate:
            self.maybe_throw()
        return self.result

    async def _await_end(self, propagate: bool) -> None:
        listener = await _listener(self.backend)
        # What comes before it in a chain or chord: who waits is told the exception of the part that failed.
        before = (
            [leaf for node in reversed(list(self._parents())) for leaf in _leaves(node)] if propagate else []
        )
        waiting = {asyncio.ensure_future(listener.ended(node.id)): node for node in (self, *before)}
        try:
            while not self._cache:
                ended, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for each in ended:
                    node = waiting.pop(each)
                    node._maybe_set_cache(each.result())
                if self._cache and self._cache["status"] == states.SUCCESS:
                    return
                if self._cache and waiting:  # what this end followed from has ended, too
                    for task_id, meta in (await listener.look([node.id for node in before])).items():
                        for node in before:
                            if node.id == task_id:
                                node._maybe_set_cache(meta)
                for node in before:
                    if node._cache:
                        node.maybe_throw()
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def aprogress(self, *, interval: float = 0.5) -> AsyncIterator[Progress]:
        """Give the job's progress each time that it has changed, its end as the last.

        Postgres tells of changes, on the connection by which `aget` waits. What changed more than once before the
        caller asked for the next one is given as it is then.

        Args:
            interval: Seconds between two looks while Postgres cannot tell: behind a pooler that gives sessions to
                others, too, or as a role that may not write its tables.
        """
        app, job_id, last = self.app, job_id_for(self.id), None
        listener = await _listener(self.backend)
        end = asyncio.ensure_future(listener.ended(self.id))
        follower = Follower(app, listener, job_id, interval=interval)
        try:
            while True:
                is_over = end.done()
                await follower.follow()
                row = await on_loop.run(app.jobs.find, job_id)
                if row is not None:
                    now = Progress(
                        status=row.status,
                        percent=row.progress,
                        message=row.progress_message,
                        attempt=row.attempt,
                    )
                    if now != last:
                        last = now
                        yield now
                if is_over or (row is not None and row.status.is_final):
                    return
                await follower.until_told(end)
        finally:
            end.cancel()
            await follower.leave()
            await asyncio.gather(end, return_exceptions=True)


class AsyncGroup:
    """What Celery's results of many get."""

    results: list[Any]

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:
        """Wait for all, and give what they returned, in their order. As `get` does."""
        try:
            async with asyncio.timeout(timeout) as limit, asyncio.TaskGroup() as group:
                waiting = [group.create_task(each.aget(propagate=propagate)) for each in self.results]
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise CeleryTimeoutError("The operation timed out.") from error
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [each.result() for each in waiting]

    @classmethod
    def of(cls, name: str) -> type[Any]:
        """Give Celery's class with it."""
        base = symbol_by_name(name)
        return type(base.__name__, (cls, base), {"__module__": base.__module__, "__doc__": base.__doc__})


class AsyncApp:
    """The part of the app that has them."""

    subclass_with_self: Callable[..., Any]
    send_task: Callable[..., Any]

    async def arun(self, function: Callable[P, Value], *args: P.args, **kwargs: P.kwargs) -> Value:
        """Run synchronous code that sends jobs, or asks of them, from a coroutine.

        Its statements wait on the loop; whatever else it waits for blocks it. It must not wait for results.
        """
        return await on_loop.run(in_job(function), *args, **kwargs)

    async def asend_task(self, *args: Any, **options: Any) -> Any:
        """Send a task by name as `send_task` does."""
        return await on_loop.run(in_job(partial(self.send_task, *args, **options)))

    @cached_property
    def AsyncResult(self) -> Any:  # noqa: N802  # Celery's name
        return self.subclass_with_self(AsyncSingle, name="AsyncResult", reverse="AsyncResult")

    @cached_property
    def ResultSet(self) -> Any:  # noqa: N802  # Celery's name
        return self.subclass_with_self(AsyncGroup.of("celery.result:ResultSet"), name="ResultSet")

    @cached_property
    def GroupResult(self) -> Any:  # noqa: N802  # Celery's name
        made = AsyncGroup.of("celery.result:GroupResult")
        return self.subclass_with_self(made, name="GroupResult", reverse="GroupResult")


def _leaves(node: Any) -> Iterator[AsyncSingle]:
    """Give the results of single jobs in a result: those of a group's members."""
    if isinstance(node, AsyncSingle):
        yield node
    for each in getattr(node, "results", None) or ():
        yield from _leaves(each)


async def _listener(backend: Any) -> LoopListener:
    return await on_loop.kept_by_loop(("results", id(backend)), lambda: LoopListener(backend))

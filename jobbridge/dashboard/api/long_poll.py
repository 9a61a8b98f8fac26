"""Waiting for a job's end, without a thread for each who waits.

One loop of the process asks for all jobs that somebody waits for, in one statement, as long as there are any. It is
made where it is needed and ends by itself, so nothing is there after a fork. Who hangs up waits no longer, and when
the server stops, all are told how far their jobs are.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey
from jobbridge.core.status import FINAL
from jobbridge.dashboard.api.documents.responses import Ended
from jobbridge.dashboard.api.documents.serializers import job_detail
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked
from jobbridge.errors import DatabaseError

if TYPE_CHECKING:
    from jobbridge.store.jobs.queries import JobStore

#: Who may wait at once in one process, and of one principal.
MOST = 1000
MOST_OF_ONE = 500
#: Seconds between two looks.
EVERY = 0.25
LONGEST = 60


class Waiters:
    """Those who wait for jobs to end.

    Args:
        jobs: Where they are looked for.
    """

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._waiting: Counter[JobKey] = Counter()
        self._of: Counter[str] = Counter()
        self._ended: dict[JobKey, asyncio.Event] = {}
        self._looking: asyncio.Task[None] | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """Have nobody wait any more: the server stops. To be called in its loop."""
        self._is_stopped = True
        for ended in self._ended.values():
            ended.set()

    async def wait(
        self, key: JobKey, name: str, seconds: float, *, until_gone: Callable[[], Awaitable[None]]
    ) -> None:
        """Return when the job has ended, the time is over, the client has gone, or the server stops.

        Args:
            key: The job.
            name: Who waits.
            seconds: How long, at most.
            until_gone: Returns when whoever waits has hung up.

        Raises:
            HTTPException: 429, too many wait already.
        """
        if self._waiting.total() >= MOST or self._of[name] >= MOST_OF_ONE:
            raise HTTPException(429, "Too many wait for jobs already.", {"Retry-After": "5"})
        if self._is_stopped:
            return
        ended = self._ended.setdefault(key, asyncio.Event())
        self._waiting[key] += 1
        self._of[name] += 1
        try:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            await _first_of(ended.wait(), until_gone(), seconds=seconds)
        finally:
            self._leave(key, name)

    def _leave(self, key: JobKey, name: str) -> None:
        self._waiting -= Counter([key])  # and what is zero is not in it any more
        self._of -= Counter([name])
        if key not in self._waiting:
            self._ended.pop(key, None)

    async def _look(self) -> None:
        while self._waiting:
            try:
                for key in await run_in_threadpool(self._jobs.ended_among, list(self._waiting)):
                    if key in self._ended:
                        self._ended[key].set()
            except DatabaseError:
                pass  # whoever waits is told at the end of the time, by the read that follows
            await asyncio.sleep(EVERY)


async def _first_of(*awaitables: Awaitable[object], seconds: float) -> None:
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def wait_for_job(
    context: Asked, job_id: str, seconds: Annotated[float, Query(ge=0, le=LONGEST)] = 30
) -> Ended:
    """Wait until a job has ended, or the time is over.

    `ended` tells which. Ask again to wait longer; also if the answer came early, since the server stopped.
    """
    row = await run_in_threadpool(context.find_job)
    if row.status not in FINAL and seconds:
        await context.dashboard.waiters.wait(
            row.key, context.principal.name, seconds, until_gone=partial(_until_gone, context.request)
        )
    row = await run_in_threadpool(context.find_job)
    detail = await run_in_threadpool(job_detail, context, row)
    return Ended.model_construct(ended=row.status in FINAL, job=detail)


RULES = (ApiRule(f"{PREFIX}/jobs/{{job_id}}/wait", "api_wait", wait_for_job, Role.VIEWER, errors=(404, 429)),)

"""Waiting for results on an event loop: any number of coroutines, one connection that hears, one that asks.

Ends are told by the notification that threads wait for, too (`listener`); a hint and no message, so all that is waited
for is looked at now and then, in one question. Who follows a job's progress (`follower`) hears by the same connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from celery import states
from kombu.utils.encoding import bytes_to_str
from psycopg import sql

from jobbridge.core.keys import job_id_for
from jobbridge.errors import DatabaseRefused, DatabaseUnavailable
from jobbridge.postgres import on_loop
from jobbridge.postgres.connect import AsyncConnection, connect_async
from jobbridge.postgres.faults import reason_of
from jobbridge.store.workers import followers
from jobbridge.store.workers.awaiters import AWAIT, CHANNEL, LEASE, LEAVE, LONGEST

logger = logging.getLogger(__name__)

#: Seconds after which no transaction of before is expected to commit an end without telling it.
SETTLING: Final = 1.0
#: Seconds between two looks at all that is waited for: at first, while nobody tells, and while somebody does.
SOON: Final = 0.02
UNTOLD: Final = 0.5
TOLD: Final = 2.0
#: Seconds that it stays when nobody waits any more.
IDLE: Final = 30.0
#: Seconds until one that was lost, or refused, is tried again.
PAUSE: Final = 5.0
LONG_PAUSE: Final = 300.0


class LoopListener:
    """Who waits for results of one app on one loop. Its tasks are there while somebody waits, and shortly after."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._target = backend.app.database.target
        self._awaiter_id = uuid.uuid4()
        self._waiting: dict[str, set[asyncio.Future[dict[str, Any]]]] = defaultdict(set)
        self._names: dict[str, str] = {}
        self._wanted: set[str] = set()
        self._bell = asyncio.Event()
        self._nap = SOON
        self._task: asyncio.Task[None] | None = None
        self._followed: dict[str, set[asyncio.Event]] = defaultdict(set)
        #: On the monotonic clock; None: it does not, for now.
        self.listens_since: float | None = None

    @property
    def waited_for(self) -> int:
        """How many jobs somebody waits for just now."""
        return len(self._waiting)

    async def ended(self, task_id: str) -> dict[str, Any]:
        """Give the meta of a job when it has ended.

        Raises:
            DatabaseUnavailable: Postgres could not be asked.
        """
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._begin(task_id, future)
        try:
            return await future
        finally:
            self._end(task_id, future)

    async def look(self, task_ids: list[str]) -> dict[str, dict[str, Any]]:
        """Give the metas of those jobs that have ended by now."""
        return await on_loop.run(self._find, task_ids)

    @contextmanager
    def told_of(self, job_id: uuid.UUID) -> Iterator[asyncio.Event]:
        """Give what is set when a change of that job is told, and when there is more or less to be told from now on."""
        bell = asyncio.Event()
        self._followed[str(job_id)].add(bell)
        try:
            yield bell
        finally:
            self._followed[str(job_id)].discard(bell)
            if not self._followed[str(job_id)]:
                del self._followed[str(job_id)]

    def close(self) -> None:
        """Stop listening."""
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()

    def _begin(self, task_id: str, future: asyncio.Future[dict[str, Any]]) -> None:
        self._waiting[task_id].add(future)
        for name in self._names_of(task_id):
            self._names[name] = task_id
        self._wanted.add(task_id)
        self._nap = SOON
        self._bell.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._attend(), name="jobbridge-results")

    def _end(self, task_id: str, future: asyncio.Future[dict[str, Any]]) -> None:
        self._waiting[task_id].discard(future)
        if not self._waiting[task_id]:
            del self._waiting[task_id]
            for name in self._names_of(task_id):
                self._names.pop(name, None)

    def _names_of(self, task_id: str) -> list[str]:
        names = str(job_id_for(task_id)), bytes_to_str(self._backend.get_key_for_task(task_id))
        return [name[:LONGEST] for name in names]

    # -- asking

    async def _attend(self) -> None:
        hearing = asyncio.get_running_loop().create_task(self._hear(), name="jobbridge-results-heard")
        waited_at = time.monotonic()
        try:
            while self._waiting or time.monotonic() - waited_at < IDLE:
                if self._waiting:
                    waited_at = time.monotonic()
                await self._until_told()
                asked = self._wanted & self._waiting.keys()
                self._wanted.clear()
                if asked:
                    await self._ask(asked)
        finally:
            if (
                not hearing.cancelling()
            ):  # with the loop's other tasks; a second time would break off its good-bye
                hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _until_told(self) -> None:
        is_reliable = self.listens_since is not None and time.monotonic() - self.listens_since > SETTLING
        try:
            async with asyncio.timeout(TOLD if is_reliable else self._nap):
                await self._bell.wait()
        except TimeoutError:
            self._nap = min(1.5 * self._nap, UNTOLD)
            self._wanted.update(self._waiting)
        self._bell.clear()

    async def _ask(self, task_ids: Iterable[str]) -> None:
        asked = sorted(task_ids)
        try:
            found = await on_loop.run(self._find, asked)
        except Exception as error:  # whoever waits is told, as who asks for itself
            for task_id in asked:
                for future in self._waiting.get(task_id, ()):
                    if not future.done():
                        future.set_exception(error)
            return
        for task_id, meta in found.items():
            for future in self._waiting.get(task_id, ()):
                if not future.done():
                    future.set_result(meta)

    def _find(self, task_ids: list[str]) -> dict[str, dict[str, Any]]:
        backend = self._backend
        values = backend.mget([backend.get_key_for_task(task_id) for task_id in task_ids])
        found: dict[str, dict[str, Any]] = backend._mget_to_results(values, task_ids, states.READY_STATES)
        return found

    # -- being told

    async def _hear(self) -> None:
        while True:
            try:
                connection = await connect_async(self._target, "results", keeps_session=True, must_write=True)
                try:
                    await self._listen(connection)
                finally:
                    self._listens(None)
                    await self._leave(connection)
            except (psycopg.Error, DatabaseUnavailable, OSError) as error:
                logger.info("results.not_heard", extra={"error": reason_of(error)})
                await asyncio.sleep(LONG_PAUSE if isinstance(error, DatabaseRefused) else PAUSE)

    async def _listen(self, connection: AsyncConnection) -> None:
        for channel in (CHANNEL, followers.CHANNEL):
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        who = {"awaiter_id": self._awaiter_id, "lease": LEASE}
        while True:
            await connection.execute(AWAIT, who)
            if self.listens_since is None:
                self._listens(time.monotonic())
            async for notification in connection.notifies(timeout=LEASE.total_seconds() / 2):
                self._tell(notification)

    def _tell(self, notification: psycopg.Notify) -> None:
        if notification.channel == followers.CHANNEL:
            for bell in self._followed.get(notification.payload, ()):
                bell.set()
        elif (task_id := self._names.get(notification.payload)) is not None:
            self._wanted.add(task_id)
            self._bell.set()

    def _listens(self, since: float | None) -> None:
        self.listens_since = since
        for bells in self._followed.values():
            for bell in bells:
                bell.set()

    async def _leave(self, connection: AsyncConnection) -> None:
        try:
            if not connection.closed:
                await connection.execute(LEAVE, {"awaiter_id": self._awaiter_id})
        except psycopg.Error:
            pass  # its lease ends by itself
        finally:
            await connection.close()

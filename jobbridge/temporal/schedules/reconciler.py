"""Keeps Temporal's Schedules as the table has them.

It listens for changes of schedules, and looks at all of them once a minute. What it finds is one of three:

- present in the table: Temporal is told, unless it has that version;
- absent: deleted, moved to another engine, or (with our mark in Temporal) without a row: removed from Temporal;
- unknown: Temporal or the database cannot be asked, or a Schedule is not ours: left alone.

A row is always written before Temporal is told, and Temporal is listed before the rows are read: so a Schedule
without a row has lost it. Each worker has a reconciler, and one of them leads, on the very session that listens.

What if it dies between two steps? After Temporal was told, before the row says so: it is told again, the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from temporalio.client import Client
from temporalio.service import RPCError

from jobbridge.core.keys import Engine
from jobbridge.errors import EngineUnavailable, JobBridgeError
from jobbridge.postgres.connect import AsyncConnection
from jobbridge.postgres.listen import listening, wait
from jobbridge.postgres.locks import lead_async
from jobbridge.store.schedules.mirrors import MirrorStore
from jobbridge.store.schedules.repository import CHANNEL
from jobbridge.store.schedules.rows import ScheduleRow
from jobbridge.temporal.schedules.fires import settle_overdue
from jobbridge.temporal.schedules.mirror import TemporalSchedules
from jobbridge.temporal.wire.client import is_unreachable

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.temporal.wire.client import TemporalClient

logger = logging.getLogger(__name__)

#: Nobody tells of what is due to be told again, nor that the one who held the lock is gone.
LOOK_INTERVAL = timedelta(seconds=10)
#: How often all of Temporal's Schedules are listed.
SWEEP_INTERVAL = timedelta(minutes=1)
#: A run notes its fire within moments. Without one for so long, Temporal left the instant out.
GRACE = timedelta(minutes=1)
#: Schedules that are told at a time.
CONCURRENCY = 10


class ScheduleReconciler:
    """Converges the table and Temporal.

    Args:
        app: Whose schedules.
        client: The way to Temporal.
        executor: For what blocks on the database; by default the loop's own, which jobs do not wait for.
    """

    def __init__(self, app: Celery, client: TemporalClient, *, executor: Executor | None = None) -> None:
        self._app = app
        self._client = client
        self._executor = executor
        self._store = MirrorStore(app.database)
        self._few_at_a_time = asyncio.Semaphore(CONCURRENCY)

    async def run(self) -> None:
        """Listen and converge until cancelled."""
        # The lock must not outlast this worker, neither in a child of its pool nor when its host vanishes.
        await listening(
            self._app.database.target, "schedule reconciler", self._work, channel=CHANNEL, pauses=(1.0, 1.0)
        )

    async def _work(self, session: AsyncConnection) -> None:
        await self._blocking(self._app.schedules.declare_missing, Engine.TEMPORAL)  # there may be no beat
        while not await lead_async(session, "schedules"):
            await asyncio.sleep(LOOK_INTERVAL.total_seconds())
        swept_at: float | None = None
        while True:
            try:
                await self.converge()
                if swept_at is None or time.monotonic() - swept_at > SWEEP_INTERVAL.total_seconds():
                    await self.sweep()
                    swept_at = time.monotonic()
            except RPCError as error:  # and the lock goes with the session: another worker may reach Temporal
                raise EngineUnavailable(f"Temporal did not do what it was asked to: {error}") from error
            await wait(session, LOOK_INTERVAL.total_seconds())

    async def converge(self) -> int:
        """Tell Temporal what has changed in the table; gives how many changes it took."""
        if not await self._blocking(lambda: self._store.is_amiss(grace=GRACE)):
            return 0
        temporal = TemporalSchedules(self._app, await self._client.connected())
        changed = 0
        for row in await self._blocking(self._store.to_remove):
            # First, so that a schedule that moved here and back again is never at two places.
            await temporal.remove(row.schedule_id)
            await self._blocking(self._store.note_removed, row)
            changed += 1
        rows = await self._blocking(self._store.to_tell)
        changed += sum(await asyncio.gather(*(self._tell(temporal, row) for row in rows)))
        for tenant, schedule_id in await self._blocking(self._overdue):
            await self._blocking(self._settle, tenant, schedule_id)
        return changed

    async def sweep(self) -> int:
        """Compare all that Temporal has with the table, and repair; gives how many Schedules were amiss."""
        client: Client = await self._client.connected()
        temporal = TemporalSchedules(self._app, client)
        there = {told.schedule_id: told async for told in temporal.ours()}
        wanted = await self._blocking(self._store.present)
        amiss = 0
        for schedule_id in there.keys() - wanted.keys():
            logger.warning("schedules.orphan_removed", extra={"schedule_id": str(schedule_id)})
            await temporal.remove(schedule_id)
            amiss += 1
        for schedule_id, row in wanted.items():
            told = there.get(schedule_id)
            is_right = told.is_paused == row.paused if told else await temporal.exists(schedule_id)
            if not is_right:
                amiss += await self._tell_again(temporal, row.tenant, schedule_id)
        return amiss

    async def _tell_again(self, temporal: TemporalSchedules, tenant: Any, schedule_id: Any) -> int:
        row = await self._blocking(self._app.schedules.store.get, tenant, schedule_id)
        if row is None or row.mirrored_version != row.version:
            return 0  # it has changed meanwhile, and is told as any change is
        logger.warning("schedules.repaired", extra={"schedule_id": str(schedule_id), "schedule": row.name})
        return int(await self._tell(temporal, row))

    async def _tell(self, temporal: TemporalSchedules, row: ScheduleRow) -> bool:
        try:
            async with self._few_at_a_time:
                until = await temporal.put(row, datetime.now(UTC))
        except (JobBridgeError, ValueError) as error:
            await self._note_trouble(row, str(error))
            return False
        except RPCError as error:
            if is_unreachable(error):
                raise
            await self._note_trouble(row, error.message)
            return False
        await self._blocking(lambda: self._store.note_told(row, until=until))
        return True

    async def _note_trouble(self, row: ScheduleRow, reason: str) -> None:
        """One schedule that Temporal does not take must not hold up the others."""
        if await self._blocking(self._store.note_trouble, row, reason):
            told = {"schedule": row.name, "tenant": row.tenant, "error": reason}
            logger.error("schedules.not_told", extra=told)

    def _overdue(self) -> Any:
        return self._store.overdue(grace=GRACE)

    def _settle(self, tenant: Any, schedule_id: Any) -> None:
        settle_overdue(self._app, tenant, schedule_id, grace=GRACE)

    async def _blocking(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

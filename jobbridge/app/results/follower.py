"""Following the progress of one job on an event loop: told by Postgres, and looked at where that cannot be.

Who follows has a row for the job, and hears of each change on the connection that hears of ends (`loop_listener`). A
change whose transaction looked for the row before it was there is told to nobody; so there is a last look shortly after
both are there. From then on a look follows what was told, and each renewal of the row: one in ten seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg

from jobbridge.app.results.loop_listener import LONG_PAUSE, SETTLING, LoopListener
from jobbridge.errors import DatabaseError
from jobbridge.postgres import on_loop
from jobbridge.postgres.faults import reason_of
from jobbridge.store.workers.followers import FOLLOW, LEASE, UNFOLLOW

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: Seconds after which its row is good for as long again.
RENEW: Final = 10.0


class Follower:
    """Somebody who follows one job, until `leave`.

    Args:
        app: Whose job.
        listener: Of the running loop; it hears as long as somebody waits for an end.
        job_id: Of the job.
        interval: Seconds between two looks while nobody can tell.
    """

    def __init__(self, app: Celery, listener: LoopListener, job_id: uuid.UUID, *, interval: float) -> None:
        self._app = app
        self._listener = listener
        self._own = {"job_id": job_id, "follower_id": uuid.uuid4()}
        self._interval = interval
        self._stack = ExitStack()
        self._bell = self._stack.enter_context(listener.told_of(job_id))
        self._followed_since: float | None = None
        self._renewed_at = self._not_before = float("-inf")

    async def follow(self) -> None:
        """Be told from here on, as far as that can be; whoever looks afterwards misses nothing."""
        self._bell.clear()
        now = time.monotonic()
        if now - self._renewed_at < RENEW or now < self._not_before:
            return
        try:
            await self._execute(FOLLOW, self._own | {"lease": LEASE})
        except (psycopg.Error, DatabaseError) as error:  # not migrated yet, or a role that may not write
            logger.info("progress.not_told", extra={"error": reason_of(error)})
            self._followed_since, self._not_before = None, now + LONG_PAUSE
            return
        if self._followed_since is None or now - self._renewed_at > LEASE.total_seconds():
            self._followed_since = time.monotonic()
        self._renewed_at = now

    async def until_told(self, end: asyncio.Future[Any]) -> None:
        """Wait until there is something to look at: a change was told, the job has ended, or it is time to look."""
        told = asyncio.ensure_future(self._bell.wait())
        try:
            await asyncio.wait({end, told}, timeout=self._patience(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()

    def _patience(self) -> float:
        """Give how long nothing that is told nobody can have changed, in seconds."""
        if self._followed_since is None or self._listener.listens_since is None:
            return self._interval
        settled_at = max(self._followed_since, self._listener.listens_since) + SETTLING
        now = time.monotonic()
        return min(self._interval, settled_at - now) if now < settled_at else RENEW

    async def leave(self) -> None:
        """Be told no more."""
        self._stack.close()
        if self._followed_since is not None and not on_loop.is_over():
            with suppress(psycopg.Error, DatabaseError):  # its lease ends by itself
                await self._execute(UNFOLLOW, self._own)

    async def _execute(self, statement: LiteralString, values: dict[str, Any]) -> None:
        database = self._app.database

        def execute() -> None:
            database.run(lambda own: own.execute(statement, values))

        await on_loop.run(execute)

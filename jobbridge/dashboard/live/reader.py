"""The one reader of the log in this process: it runs while somebody watches, in the event loop of the server.

It looks a few times a second while jobs change. After a quiet moment it asks to be woken, looks once more, and waits;
a transaction that did not see that it sleeps is found by looking every two seconds all the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

import psycopg

from jobbridge.core.keys import TenantId
from jobbridge.dashboard.live.cursor import Cursors
from jobbridge.dashboard.live.subscribers import Subscribers
from jobbridge.postgres.connect import AsyncConnection
from jobbridge.postgres.listen import listening, wait
from jobbridge.store.access.tokens import SIGNED_OUT, STILL_GOOD
from jobbridge.store.database import Database
from jobbridge.store.monitor.change_log import LEASE, LiveLog, LiveRow, LostTrack, Totals

logger = logging.getLogger(__name__)

#: Changes that somebody who comes back is told of; who missed more reads anew.
MOST_MISSED = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often what is done, in seconds.

    Attributes:
        look: Between two looks while jobs change.
        quiet: Without changes, after which it asks to be woken.
        backstop: Between two looks while it sleeps.
        open_within: A stream is opened then, although older transactions are not over.
        counts: Between two counts of what changed.
        recount: Of everything: jobs that are deleted are no news.
        renew: Of the row that says that somebody watches.
        prune: Between two prunings of the log.
        kept: What was read stays in the log, for those who come back.
        tokens: Between two looks whether tokens are still good.
        linger: It goes on when the last subscriber has gone, since a reload is one that goes and comes.
        reconnect: Before it connects again, at first and at most.
    """

    look: float = 0.25
    quiet: float = 2.0
    backstop: float = 2.0
    open_within: float = 2.0
    counts: float = 1.0
    recount: float = 15.0
    renew: float = 20.0
    prune: float = 10.0
    kept: float = 120.0
    tokens: float = 20.0
    linger: float = 60.0
    lease: float = LEASE
    reconnect: tuple[float, float] = (0.5, 15.0)


class Reader:
    """Starts when it is needed, and ends when nobody watches any more.

    Args:
        database: Whose jobs.
        subscribers: Who is told.
        pace: How often.
    """

    def __init__(self, database: Database, subscribers: Subscribers, pace: Pace) -> None:
        self._database, self._subscribers, self._pace = database, subscribers, pace
        self._task: asyncio.Task[None] | None = None
        self._poke = asyncio.Event()
        self._watcher_id = uuid4()

    def wake(self) -> None:
        """Somebody waits to be told."""
        self._poke.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="jobbridge live events")

    def stop(self) -> None:
        """End it soon."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        # It is over when nobody watches any more.
        await listening(
            self._database.target,
            "live",
            self._watch,
            goes_on=lambda: bool(self._subscribers),
            pauses=self._pace.reconnect,
        )

    async def _watch(self, connection: AsyncConnection) -> None:
        log = LiveLog(connection, self._watcher_id, lease=self._pace.lease)
        try:
            await _Watch(connection, log, self._subscribers, self._pace, self._poke).run()
        finally:
            with suppress(psycopg.Error, OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await log.leave()


class _Watch:
    """From one connection to its loss, or until nobody watches any more."""

    def __init__(
        self,
        connection: AsyncConnection,
        log: LiveLog,
        subscribers: Subscribers,
        pace: Pace,
        poke: asyncio.Event,
    ) -> None:
        self._connection, self._log, self._subscribers, self._pace = connection, log, subscribers, pace
        self._poke = poke
        self._cursors = Cursors(kept=pace.kept)
        now = time.monotonic()
        self._begun_at = self._changed_at = self._watched_at = now
        self._done_at: dict[str, float] = {}
        self._marks: deque[tuple[float, tuple[int, list[int]]]] = deque()
        self._was_complete = self._is_asleep = False
        self._moved: set[TenantId | None] = set()  # whose totals may have changed; None: of all

    async def run(self) -> None:
        await self._log.watch()
        while self._is_wanted():
            began_at = time.monotonic()
            self._poke.clear()
            try:
                has_more = await self._look()
                await self._keep_up()
            except LostTrack as lost:
                logger.info("live.begins_anew", extra={"reason": str(lost)})
                await self._log.begin()
                self._was_complete = self._is_asleep = False
                has_more = True
            await self._count()
            await self._open()
            if not has_more:
                await self._rest(took=time.monotonic() - began_at)

    def _is_wanted(self) -> bool:
        if self._subscribers:
            self._watched_at = time.monotonic()
        return time.monotonic() - self._watched_at < self._pace.linger

    async def _look(self) -> bool:
        changed, has_more = await self._log.read()
        news = await self._log.jobs(changed) if changed else []
        self._subscribers.cursor = self._cursors.note(self._log.complete_to, now=time.monotonic())
        self._subscribers.tell(news)
        for row in news:
            self._moved |= {None, row.tenant}
        if changed:
            self._changed_at = time.monotonic()
        return has_more

    async def _keep_up(self) -> None:
        """Do what is due once in a while."""
        if self._is_due("renew", self._pace.renew):
            await self._log.renew()
        if self._is_due("tokens", self._pace.tokens):
            await self._close_what_is_over()
        if self._is_due("prune", self._pace.prune):
            now = time.monotonic()
            self._marks.append((now, self._log.mark()))
            while self._marks and self._marks[0][0] <= now - self._pace.kept:
                await self._log.prune(self._marks.popleft()[1])

    async def _close_what_is_over(self) -> None:
        """End the streams of tokens that were revoked, and of sessions that were ended."""
        if tokens := self._subscribers.token_ids:
            cursor = await self._connection.execute(STILL_GOOD, {"token_ids": list(tokens)})
            self._subscribers.close_others({token_id for (token_id,) in await cursor.fetchall()})
        if sessions := self._subscribers.sessions:
            cursor = await self._connection.execute(SIGNED_OUT, {"sessions": list(sessions)})
            self._subscribers.close_signed_out({bytes(session) for (session,) in await cursor.fetchall()})

    async def _count(self) -> None:
        if self._is_due("recount", self._pace.recount):
            self._moved |= self._subscribers.counted
        if not self._moved or not self._is_due("counts", self._pace.counts):
            return
        moved, self._moved = self._moved & self._subscribers.counted, set()
        totals: dict[TenantId | None, Totals] = {}
        if theirs := [tenant for tenant in moved if tenant is not None]:
            totals.update(await self._log.totals_of(theirs))
        if None in moved:
            totals[None] = await self._log.totals()
        self._subscribers.tell_totals(totals)

    async def _open(self) -> None:
        """Begin to tell those who came, once nothing can be missed."""
        if self._log.is_complete and not self._was_complete:
            self._was_complete = True
            self._subscribers.reset()
        if self._was_complete or time.monotonic() - self._begun_at > self._pace.open_within:
            for subscriber in self._subscribers.take_waiting():
                self._subscribers.open(subscriber, await self._missed(subscriber.seen))
                self._moved.add(subscriber.interest.tenant)

    async def _missed(self, seen: str | None) -> Sequence[LiveRow] | None:
        after = None if seen is None else self._cursors.find(seen)
        job_ids = None if after is None else await self._log.missed(after, limit=MOST_MISSED)
        if job_ids is None:
            return None
        return await self._log.jobs(job_ids) if job_ids else []

    async def _rest(self, *, took: float) -> None:
        now = time.monotonic()
        if now - self._changed_at < self._pace.quiet or not self._was_complete:
            if self._is_asleep:
                await self._fall_asleep(False)
            # A look that takes long is made less often: all of it is never more than a quarter of a processor.
            await asyncio.sleep(max(self._pace.look, min(3 * took, 1.0)))
        elif not self._is_asleep:
            await self._fall_asleep(True)  # and look once more
        else:
            await self._wait(self._pace.counts if self._moved else self._pace.backstop)

    async def _fall_asleep(self, is_asleep: bool) -> None:
        self._is_asleep = is_asleep
        await self._log.sleep(is_asleep)

    async def _wait(self, seconds: float) -> None:
        """Wait for a notification, or for somebody who joins."""
        if self._poke.is_set():
            return
        listening = asyncio.ensure_future(self._listen(seconds))
        poked = asyncio.ensure_future(self._poke.wait())
        try:
            await asyncio.wait({listening, poked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (listening, poked):
                task.cancel()
            told = await asyncio.gather(listening, poked, return_exceptions=True)
        if isinstance(told[0], Exception):
            raise told[0]

    async def _listen(self, seconds: float) -> None:
        if await wait(self._connection, seconds):
            self._poke.set()

    def _is_due(self, name: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._done_at.get(name, float("-inf")) < seconds:
            return False
        self._done_at[name] = now
        return True

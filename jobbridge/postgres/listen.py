"""Hearing of NOTIFY; on an event loop for as long as the process runs, whatever becomes of the connection.

Who listens looks at the tables too, once in a while: a notification is a hint and no message, and what was notified
while nobody listened is not told again. So each new connection begins with a look.
"""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import psycopg
from psycopg import sql

from jobbridge.errors import JobBridgeError
from jobbridge.postgres.connect import AsyncConnection, Connection, connect_async
from jobbridge.postgres.faults import reason_of
from jobbridge.postgres.target import Target

logger = logging.getLogger(__name__)

#: Seconds after which the same trouble is told again.
TOLD_AGAIN: Final = 300.0
#: A connection that held so long was no trouble. Seconds.
HELD: Final = 60.0
#: Seconds before it connects again, at first and at most. A connection that held so long makes it begin anew.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 15.0
#: What came is read within this time; it may be no notification. Seconds.
READING: Final = 0.1

Work = Callable[[AsyncConnection], Awaitable[None]]


async def listening(
    target: Target,
    purpose: str,
    work: Work,
    *,
    channel: str | None = None,
    goes_on: Callable[[], bool] = lambda: True,
    pauses: tuple[float, float] = (FIRST_PAUSE, LONGEST_PAUSE),
) -> None:
    """Do `work` on a connection that listens, again and again until cancelled.

    Args:
        target: Where to.
        purpose: For `pg_stat_activity`, and for the log.
        work: Goes on until the connection is lost, or it has nothing more to do for now.
        channel: What to listen to; `work` may do so itself.
        goes_on: Asked before each connection.
        pauses: Seconds before it connects again, at first and at most.
    """
    first, longest = pauses
    pause = first
    trouble = _Trouble(purpose)
    while goes_on():
        began_at = time.monotonic()
        try:
            connection = await connect_async(target, purpose, keeps_session=True)
            async with connection:
                if channel is not None:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                await work(connection)
            trouble.is_over()
            continue
        except (psycopg.Error, JobBridgeError, OSError, TimeoutError) as error:
            if time.monotonic() - began_at > HELD:
                trouble.is_over()
            trouble.tell(reason_of(error))
        except Exception:
            logger.exception("listener.failed", extra={"listener": purpose})
        pause = first if time.monotonic() - began_at > longest else min(pause * 2, longest)
        await asyncio.sleep(pause)


class _Trouble:
    """What keeps a listener from listening: told once, and then rarely, however often it is met.

    Args:
        purpose: The listener's.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        self._reason: str | None = None
        self._told_at = 0.0
        self._times = 0

    def tell(self, reason: str) -> None:
        """Log it, unless that was done lately."""
        self._times += 1
        now = time.monotonic()
        if reason == self._reason and now - self._told_at < TOLD_AGAIN:
            return
        logger.warning(
            "listener.interrupted",
            extra={"listener": self._purpose, "error": reason, "times": self._times},
        )
        self._reason, self._told_at = reason, now

    def is_over(self) -> None:
        """Have the next one told at once."""
        self._reason, self._times = None, 0


async def wait(connection: AsyncConnection, seconds: float) -> bool:
    """Wait until something is notified, at most `seconds`; tell whether it was."""
    return bool(await heard(connection, seconds))


async def heard(connection: AsyncConnection, seconds: float) -> Sequence[str]:
    """Wait until something is notified, at most `seconds`; give all that was said, nothing: none was.

    Sleeps meanwhile: psycopg's own wait wakes ten times a second (psycopg 3.3, `connection_async._WAIT_INTERVAL`).
    """
    deadline = time.monotonic() + seconds
    patience = 0.0
    while True:
        # To its end: what comes in one packet is given by one call, and lost with it if that is left (psycopg 3.3).
        told = [each.payload async for each in connection.notifies(timeout=patience, stop_after=1)]
        if told:
            return told
        left = deadline - time.monotonic()
        if left <= 0:
            return []
        patience = READING if await _is_readable(connection.fileno(), left) else 0.0


async def _is_readable(fd: int, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(fd, came.set)
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(came.wait(), seconds)
    finally:
        loop.remove_reader(fd)
    return came.is_set()


def notified(connection: Connection, seconds: float) -> Sequence[str]:
    """Wait until something is notified, at most `seconds`, and give the payloads; none: nothing was.

    Sleeps meanwhile, as `wait` does.

    Raises:
        psycopg.OperationalError: The connection is lost.
    """
    payloads = [each.payload for each in connection.notifies(timeout=0)]
    if not payloads:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        if poll.poll(seconds * 1000):
            payloads = [each.payload for each in connection.notifies(timeout=0)]
    return payloads

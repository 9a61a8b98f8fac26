"""From whoever asks for a stream to the one reader of this process."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from jobbridge.dashboard.live.reader import Pace, Reader
from jobbridge.dashboard.live.subscriber import Subscriber
from jobbridge.dashboard.live.subscribers import Subscribers
from jobbridge.store.database import Database

#: Streams of one process, and of one token: a tenth of a processor and 20 MB, if nothing happens.
MOST_SUBSCRIBERS = 1_000
MOST_SUBSCRIBERS_EACH = 500


class Broadcaster:
    """Those who watch in one event loop, and their reader."""

    def __init__(self, database: Database, *, most: int, most_each: int, pace: Pace) -> None:
        self._subscribers = Subscribers(most=most, most_each=most_each)
        self._reader = Reader(database, self._subscribers, pace)
        self._is_stopped = False

    @property
    def cursor(self) -> str | None:
        """What somebody has seen for whom nothing waits."""
        return self._subscribers.cursor or None

    def join(self, subscriber: Subscriber) -> None:
        """Tell one more of changes.

        Raises:
            TooManySubscribers: There are enough.
        """
        self._subscribers.join(subscriber)
        if self._is_stopped:
            subscriber.close()
        else:
            self._reader.wake()

    def leave(self, subscriber: Subscriber) -> None:
        """It has gone."""
        self._subscribers.leave(subscriber)

    def stop(self) -> None:
        """End all streams, and take no more."""
        self._is_stopped = True
        self._subscribers.close()
        self._reader.stop()


class Live:
    """The broadcasters of a dashboard: made on first use, one for each event loop that serves it.

    Args:
        database: Whose jobs.
        most: Streams of one process.
        most_each: Streams of one token.
        pace: How often what is done.
    """

    def __init__(
        self,
        database: Database,
        *,
        most: int = MOST_SUBSCRIBERS,
        most_each: int = MOST_SUBSCRIBERS_EACH,
        pace: Pace | None = None,
    ) -> None:
        self._database = database
        self._most, self._most_each = most, most_each
        self._pace = pace or Pace()
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Broadcaster] = WeakKeyDictionary()

    def here(self) -> Broadcaster:
        """Give that of the running loop."""
        loop = asyncio.get_running_loop()
        known = self._by_loop.get(loop)
        if known is None:
            known = self._by_loop[loop] = Broadcaster(
                self._database, most=self._most, most_each=self._most_each, pace=self._pace
            )
        return known

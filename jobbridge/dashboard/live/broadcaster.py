"""From whoever asks for a stream to the one reader of this process."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from jobbridge.dashboard.live.reader import Pace, Reader
from jobbridge.dashboard.live.subscriber import Viewer
from jobbridge.dashboard.live.subscribers import Audience
from jobbridge.store.database import Database

#: Streams of one process, and of one token: a tenth of a processor and 20 MB, if nothing happens.
MOST_VIEWERS = 1_000
MOST_VIEWERS_EACH = 500


class Broadcaster:
    """Those who watch in one event loop, and their reader."""

    def __init__(self, database: Database, *, most: int, most_each: int, pace: Pace) -> None:
        self._audience = Audience(most=most, most_each=most_each)
        self._reader = Reader(database, self._audience, pace)
        self._is_stopped = False

    @property
    def moment(self) -> str | None:
        """What somebody has seen for whom nothing waits."""
        return self._audience.moment or None

    def join(self, viewer: Viewer) -> None:
        """Tell one more of changes.

        Raises:
            TooManyViewers: There are enough.
        """
        self._audience.join(viewer)
        if self._is_stopped:
            viewer.close()
        else:
            self._reader.wake()

    def leave(self, viewer: Viewer) -> None:
        """It has gone."""
        self._audience.leave(viewer)

    def stop(self) -> None:
        """End all streams, and take no more."""
        self._is_stopped = True
        self._audience.close()
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
        most: int = MOST_VIEWERS,
        most_each: int = MOST_VIEWERS_EACH,
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

"""`celery beat -S jobbridge`: fires the schedules of the table. Any number of beats may run.

There is no leader: each beat fires what is due and no other one holds at that moment. So a dead beat's work is done by
the others at once, when the server gave up its session.
"""

from __future__ import annotations

import logging
import select
import time
from typing import Any, ClassVar

import psycopg
from celery.beat import Scheduler as CeleryScheduler
from kombu.exceptions import OperationalError

from jobbridge.app.schedules.declared import entries_of, sync_declared
from jobbridge.app.schedules.firing import BATCH, ScheduleFirer
from jobbridge.app.schedules.releases import SAYS_AGAIN
from jobbridge.errors import DatabaseUnavailable
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.connect import close, connect
from jobbridge.postgres.names import identify, is_identified
from jobbridge.store.schedules.repository import CHANNEL, Clock, database_clock

logger = logging.getLogger(__name__)

#: One wait is no longer, for an embedded beat is told to stop by a flag that is seen between two ticks. Seconds.
SLICE = 1.0
#: What is due and could not be claimed is held by another beat: look again. Seconds.
HELD_ELSEWHERE = 0.2

_Base: Any = CeleryScheduler  # the stubs leave out what is overridden here


class TableScheduler(_Base):  # type: ignore[misc]  # see _Base
    """Celery's scheduler over `job_schedules`.

    What `beat_schedule` and `@job(schedule=…)` declare is brought into the table when it starts. It waits itself,
    for the next due instant or for the notification that a schedule was changed, so Celery's service never sleeps.
    """

    #: The table is looked at so often, whoever tells of changes or not. Seconds.
    max_interval = 30

    #: What time it is; tests set another one in a subclass.
    clock: ClassVar[Clock] = staticmethod(database_clock)

    def __init__(self, app: Any, **options: Any) -> None:
        if not is_identified():  # else it is a worker's own beat (`celery worker -B`)
            identify("beat")
        self._firer = ScheduleFirer(app, clock=type(self).clock)
        self._listener: DriverConnection | None = None
        self._next_look = 0.0
        self._pause = 0.0
        self._declared_at: float | None = None
        super().__init__(app, **options)

    def setup_schedule(self) -> None:
        made, _ = entries_of(
            self.app, self.app.conf.beat_schedule, self.Entry
        )  # the others are told with the first tick
        self.data.update(made)
        self.install_default_entries(self.data)
        self._declared_at = None  # with the first tick: Postgres may be away now

    def tick(self, **_: Any) -> float:
        """Fire what is due, or wait for it; gives the seconds that Celery's service is to sleep: mostly none."""
        try:
            return self._tick()
        except (DatabaseUnavailable, psycopg.Error, OperationalError) as error:
            self._pause = min(self._pause * 2 or 0.5, 15.0)
            logger.warning("beat.cannot_fire", extra={"error": str(error), "again_in": self._pause})
            self._stop_listening()
            self._next_look = 0.0
            return self._pause

    def close(self) -> None:
        self._stop_listening()
        super().close()

    @property
    def info(self) -> str:
        return f"    . schedules -> {self.app.database!r}"

    def _tick(self) -> float:
        self._listen()
        now = time.monotonic()
        if self._declared_at is None or now - self._declared_at > SAYS_AGAIN.total_seconds():
            is_repeated = self._declared_at is not None
            sync_declared(self.app, list(self.data.values()), is_repeated=is_repeated)
            self._declared_at = now
        if time.monotonic() < self._next_look and not self._wait():
            return 0.0
        fired = self._firer.fire_due()
        self._pause = 0.0
        self._next_look = 0.0 if fired == BATCH else time.monotonic() + self._until_next(fired)
        return 0.0

    def _until_next(self, fired: int) -> float:
        left = self._firer.time_to_next()
        if left is None:
            return float(self.max_interval)
        if left.total_seconds() <= 0:
            return 0.0 if fired else HELD_ELSEWHERE
        return min(left.total_seconds(), float(self.max_interval))

    def _wait(self) -> bool:
        """Wait for the next look, but not for longer than a slice; True: a schedule was changed."""
        assert self._listener is not None
        left = self._next_look - time.monotonic()
        readable, _, _ = select.select([self._listener.fileno()], [], [], max(0.0, min(left, SLICE)))
        if not readable:
            return time.monotonic() >= self._next_look
        return any(True for _ in self._listener.notifies(timeout=0))

    def _listen(self) -> None:
        if self._listener is None or self._listener.closed:
            self._listener = connect(
                self.app.database.target, "schedules", keeps_session=True, must_write=True
            )
            self._listener.execute(f"LISTEN {CHANNEL}")

    def _stop_listening(self) -> None:
        if self._listener is not None:
            close(self._listener)
            self._listener = None

"""That Temporal has a job is written in its row: at once, or, where one is sent after the other, many at a time.

Until then the row is `pending`, and its job runs all the same: its start says so, too. What if the process dies before
it is written? A relay finds the row pending, asks Temporal, and is told that the workflow runs (`relay`).

So it need not be waited for. Who sends a few jobs sees them `queued` when they are sent; who sends many, one after the
other, does not wait for it: a thread of its own writes what has gathered meanwhile, in one statement.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobbridge.core.events import Accepted
from jobbridge.errors import DatabaseError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: A send within this time of the one before goes on with it, in seconds; after so many of them it is one of many.
SOON = 0.1
FEW = 20
#: So long others are waited for; to be written with them. Seconds.
GATHER = 0.01
#: At most so many in one statement.
MANY = 200


class Acceptances:
    """Writes what Temporal has accepted. Safe to call from several threads; not across a fork.

    Args:
        app: Whose jobs.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._is_due = threading.Event()
        self._waiting: list[Accepted] = []
        self._noted_at = float("-inf")
        self._in_a_row = 0
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._pid = os.getpid()

    def note(self, accepted: Accepted) -> None:
        """Write it: now, or within a moment if it is one of many. Trouble is logged."""
        with self._lock:
            noted_at, self._noted_at = self._noted_at, time.monotonic()
            self._in_a_row = self._in_a_row + 1 if self._noted_at - noted_at < SOON else 0
            gathers = self._in_a_row >= FEW and not self._is_closed and self._pid == os.getpid()
            if gathers:
                self._waiting.append(accepted)
                if self._thread is None:
                    self._begin()
        if gathers:
            self._is_due.set()
        else:
            self._write([accepted])

    def flush(self) -> None:
        """Write what waits."""
        if self._pid != os.getpid():
            return  # the process that forked us does
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), MANY):
            self._write(waiting[first : first + MANY])

    def close(self) -> None:
        """Write what waits, and from now on at once."""
        with self._lock:
            self._is_closed = True
        self._is_due.set()
        atexit.unregister(self.flush)
        self.flush()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="jobbridge-acceptances", daemon=True)
        self._thread.start()
        atexit.register(self.flush)

    def _keep(self) -> None:
        while not self._is_closed:
            self._is_due.wait()
            self._is_due.clear()
            time.sleep(GATHER)
            self.flush()

    def _write(self, accepted: Sequence[Accepted]) -> None:
        try:
            if len(accepted) == 1:
                self._app.recorder.record(accepted[0])
            else:
                self._app.recorder.accept_many(accepted)
        except DatabaseError as error:  # their starts say so, too, and the relay
            for each in accepted:
                told = {"job_id": str(each.key.job_id), "error": str(error)}
                logger.warning("job.acceptance_not_recorded", extra=told)

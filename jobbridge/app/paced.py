"""What running tasks report again and again is written a few times a second; the last of it always.

A report that comes soon after another of its kind waits, and the next one takes its place; a timer writes what waits
then. Whoever reads here, and the end of the attempt, have what waits written first. A hundred thousand reports in a row
are then a few statements, and not four hundred thousand.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: Seconds from one report to the next that is written.
INTERVAL = 0.25
#: Seconds that an end waits for a report which is being written: that may wait in turn for what the end holds.
PATIENCE = 1.0

#: What a handler's context writes, and what `update_state` does; they do not wait for each other.
PROGRESS, STATE = "progress", "state"

Write = Callable[[], Any]

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class _Reports:
    """Those of one task, of one channel."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    kind: str | None = None
    written_at: float = float("-inf")
    waiting: Write | None = None
    timer: threading.Timer | None = None
    answer: Any = None

    def write(self, write: Write) -> None:
        try:
            self.answer = write()
        finally:
            self.written_at = time.monotonic()

    def write_waiting(self) -> None:
        """Write what waits, by the timer or with an end: neither suffers from it, and who reported is elsewhere."""
        with self.lock:
            self.timer = None
            if (write := self.waiting) is not None:
                self.waiting = None
                try:
                    self.write(write)
                except Exception:
                    logger.warning("report.not_written", exc_info=True)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class PacedReports:
    """The reports of the tasks that run in this process. From any thread."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._of: dict[tuple[str, str], _Reports] = {}

    def put(self, task_id: str, channel: str, write: Write, *, kind: str = "") -> Any:
        """Have a report written, at once or by and by.

        Args:
            task_id: Whose.
            channel: PROGRESS or STATE.
            kind: Only a report of the same kind may take its place.
            write: Does it.

        Returns:
            What the last writing of such a report gave; None: there was none yet.
        """
        own = self._here().setdefault((task_id, channel), _Reports())
        with own.lock:
            left = INTERVAL - (time.monotonic() - own.written_at)
            if kind == own.kind and left > 0:
                own.waiting = write
                if own.timer is None:
                    own.timer = threading.Timer(left, own.write_waiting)
                    own.timer.daemon = True
                    own.timer.start()
                return own.answer
            own.stop_timer()
            if kind != own.kind:
                own.write_waiting()
            own.kind, own.waiting = kind, None
            own.write(write)
            return own.answer

    def flush(self, task_id: str) -> None:
        """Write what waits of a task's reports, now."""
        for channel in (PROGRESS, STATE):
            own = self._here().get((task_id, channel))
            if own is not None and own.lock.acquire(timeout=PATIENCE):
                try:
                    own.stop_timer()
                    own.write_waiting()
                finally:
                    own.lock.release()

    def close(self, task_id: str, *, writes: bool) -> None:
        """End a task's reports.

        Args:
            task_id: Whose.
            writes: What waits; else it is dropped.
        """
        if writes:
            self.flush(task_id)
        for channel in (PROGRESS, STATE):
            if (own := self._here().pop((task_id, channel), None)) is not None:
                own.waiting = None
                own.stop_timer()

    def _here(self) -> dict[tuple[str, str], _Reports]:
        if self._pid != os.getpid():  # a fork copies neither timers nor who holds a lock
            self._pid, self._of = os.getpid(), {}
        return self._of


#: Of this process. Celery makes a backend for each thread.
REPORTS = PacedReports()

"""What `jobbridge doctor` finds, for many who look: at most one look at a time, and not each time.

A quick look asks the tables alone. The whole one also asks the broker, Temporal and the workers, each of which may be
away and take its time. Nobody waits for either, but for a moment for the first: they are done on threads of their own,
and pages show what the last one found.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.diagnosis import consumers, engines, holders, upkeep
from jobbridge.diagnosis.checks import check_all
from jobbridge.diagnosis.findings import Check, bad
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: What was looked at so lately is not looked at again; nor within so many times what the look took, so that looking
#: costs a few per cent of one core at most, however large the tables are.
FRESH = timedelta(seconds=10)
_RESTS = 20
#: How long somebody waits for the first quick look, which takes long where the tables are large and cold. Seconds.
PATIENCE = 2.0
#: Who is amid two steps has moved on within this time. Seconds.
_APART = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a look found, when, and how long it took."""

    checks: Sequence[Check]
    looked_at: datetime
    took: timedelta = timedelta(0)

    @property
    def bad(self) -> list[Check]:
        return [check for check in self.checks if not check.is_good]

    @property
    def good(self) -> list[Check]:
        return [check for check in self.checks if check.is_good]


class Look:
    """Looks, and remembers what it saw.

    Args:
        check: What it does.
        fresh: How long that holds.
    """

    def __init__(self, check: Callable[[], Sequence[Check]], *, fresh: timedelta = FRESH) -> None:
        self._check = check
        self._fresh = fresh
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last: Report | None = None

    @property
    def last(self) -> Report | None:
        return self._last

    @property
    def is_under_way(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_due(self) -> bool:
        """Whether it is time for another look, and nobody has begun one."""
        last = self._last
        if self.is_under_way:
            return False
        return last is None or datetime.now(UTC) - last.looked_at > max(self._fresh, _RESTS * last.took)

    def forget(self) -> None:
        """Have the next one who asks look anew."""
        self._last = None

    def begin(self) -> threading.Thread:
        """Look, unless that is under way; gives who looks, and does not wait for it."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                # A daemon: a server that stops does not wait for Temporal.
                self._thread = threading.Thread(target=self._run, name="jobbridge looks", daemon=True)
                self._thread.start()
            return self._thread

    def soon(self, *, is_fresh: bool = False, patience: float | None = None) -> Report | None:
        """Give what the last look found, and have it looked anew if that is due.

        Args:
            is_fresh: Wait for a look that is due, too; not for the very first alone.
            patience: Seconds to wait at most; by default `PATIENCE`.

        Returns:
            None: The first look is not over yet.
        """
        if self.is_due:
            self.begin()
        thread = self._thread
        if thread is not None and (is_fresh or self._last is None):
            thread.join(PATIENCE if patience is None else patience)
        return self._last

    def _run(self) -> None:
        self._last = self._look()

    def _look(self) -> Report:
        begun = time.monotonic()
        checks = self._found()
        took = timedelta(seconds=time.monotonic() - begun)
        return Report(checks=checks, looked_at=datetime.now(UTC), took=took)

    def _found(self) -> Sequence[Check]:
        try:
            return self._check()
        except JobBridgeError as error:
            return [bad("checks", str(error), error.hint)]
        except Exception as error:
            logger.exception("dashboard.check_failed")
            found = f"They could not be made: {type(error).__name__}."
            return [bad("checks", found, "The server's log says why; `jobbridge doctor` makes them, too.")]


class CheckUp:
    """The looks of one process.

    Args:
        app: At whose tables and engines.
    """

    def __init__(self, app: Celery) -> None:
        self.quick = Look(lambda: _check_tables(app))
        self.whole = Look(lambda: check_all(app, app.settings))


def _check_tables(app: Celery) -> Sequence[Check]:
    return [
        *consumers.check_workers(app),
        *consumers.check_schedules(app),
        *engines.check_fallback(app),
        *holders.check_held(app, apart=_APART),
        *upkeep.check_services(app),
        *upkeep.check_counts(app),
    ]

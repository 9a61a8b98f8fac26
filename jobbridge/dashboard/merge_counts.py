"""Adds up the counts of jobs where nobody else does: a dashboard may run where no worker does.

Workers and `jobbridge maintain` have a service for it (`maintenance.counts`); two who fold at once do not meet. Here
it is done on a thread, while somebody looks, and only when so many changes wait that answers would be slow.
"""

from __future__ import annotations

import logging
import threading
import time

from jobbridge.errors import JobBridgeError
from jobbridge.store.counts.counts import CountStore

logger = logging.getLogger(__name__)

#: Fewer are for the workers' service.
MANY = 10_000
#: Of one fold; it holds the totals' rows for some seconds.
PORTION = 100_000
#: Seconds between two looks at how many wait.
REST = 10.0


class Folder:
    """Folds when it is woken, if many changes wait; at most one thread at a time, and none while there is no need.

    Args:
        counts: Whose changes.
    """

    def __init__(self, counts: CountStore) -> None:
        self._counts = counts
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken_at = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether it is time to look; asks nobody."""
        return time.monotonic() >= self._woken_at + REST

    def wake(self) -> None:
        """Look whether many changes wait, and have them folded; does not wait for that."""
        with self._lock:
            if not self.is_due or (self._thread is not None and self._thread.is_alive()):
                return
            self._woken_at = time.monotonic()
        try:
            if not self._counts.has_changes(MANY):
                return
        except JobBridgeError:
            return  # who asked for something will hear it
        self._thread = threading.Thread(target=self._fold, name="jobbridge-folding", daemon=True)
        self._thread.start()

    def _fold(self) -> None:
        try:
            while self._counts.has_changes(MANY):
                folded = self._counts.fold(limit=PORTION)
                if folded == 0:
                    return  # somebody else has them
                logger.info("dashboard.counts_folded", extra={"changes": folded})
        except JobBridgeError as error:
            logger.warning("dashboard.counts_not_folded", extra={"error": str(error)})

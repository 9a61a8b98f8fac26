"""Folds the changes of the jobs' counts, so that asking for a count stays quick."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from jobbridge.store.counting import BATCH, CountStore

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: How long one run may go on.
SECONDS = 3.0


class Counter:
    """See the module; counts are right without it, and slower.

    Args:
        app: Whose tables.
    """

    name = "counter"
    interval = timedelta(seconds=5)

    def __init__(self, app: Celery) -> None:
        self._store = CountStore(app.database)

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Fold what there is."""
        folded, until = 0, time.monotonic() + SECONDS
        while not stopped.is_set() and time.monotonic() < until:
            now = self._store.fold()
            folded += now
            if now < BATCH:
                break
        return {"changes": folded} if folded else {}

"""Folds the changes of the jobs' counts, so that asking for a count stays quick; deletes old hours of the flow.

Not after each job: many changes of one tenant and hour are one write, so they are left to gather for a while. Whoever
asks adds them up meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from jobbridge.maintenance.portions import in_portions
from jobbridge.store.counts import partial_counts
from jobbridge.store.counts.counts import BATCH, CountStore
from jobbridge.store.counts.flow import FlowStore

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: How long one run may go on.
SECONDS = 3.0
#: How long one run may merge what large statements added, and how long it rests when there was nothing, in seconds:
#: nobody waits for that.
MERGING_SECONDS = 0.5
MERGING_REST = 300.0
#: So many changes are folded at once, fewer only after this time: who asks for a count reads them in a millisecond.
ENOUGH = 1_000
PATIENCE = timedelta(seconds=30)
#: Between two looks for hours that are past their time; cells of one statement.
PRUNING_REST = timedelta(minutes=15)
CELLS = 10_000


class Counter:
    """See the module; counts are right without it, and slower.

    Args:
        app: Whose tables.
        patience: How long few changes may gather.
    """

    name = "counter"
    interval = timedelta(seconds=20)

    def __init__(self, app: Celery, *, patience: timedelta = PATIENCE) -> None:
        self._database = app.database
        self._counts = CountStore(app.database)
        self._flow = FlowStore(app.database)
        self._patience = patience.total_seconds()
        self._fold_at = 0.0
        self._merge_at = 0.0
        self._prune_at = 0.0

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Fold what there is, if that is worth it."""
        now = time.monotonic()
        done: dict[str, int] = {}
        if now >= self._fold_at or self._counts.has_changes(ENOUGH):
            self._fold_at = now + self._patience
            done["changes"] = self._fold(stopped, now + SECONDS)
        if now >= self._merge_at:
            done["parts"] = self._merge(stopped, time.monotonic() + MERGING_SECONDS)
            self._merge_at = now if done["parts"] else now + MERGING_REST
        if now >= self._prune_at:
            self._prune_at = now + PRUNING_REST.total_seconds()
            done["cells"] = self._prune(stopped, now + SECONDS)
        return {counter: number for counter, number in done.items() if number}

    def _fold(self, stopped: threading.Event, until: float) -> int:
        return in_portions(self._counts.fold, BATCH, stopped, until)

    def _merge(self, stopped: threading.Event, until: float) -> int:
        merged = 0
        for portion in partial_counts.merge(self._database):
            merged += portion
            if stopped.is_set() or time.monotonic() >= until:
                break
        return merged

    def _prune(self, stopped: threading.Event, until: float) -> int:
        return in_portions(lambda: self._flow.prune(limit=CELLS), CELLS, stopped, until)

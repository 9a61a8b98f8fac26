"""Sees to batches of which nobody saw the last job end, and goes on with the cancelling of others.

Whoever ends a job of a batch looks at it. What nobody did so is done here; what is between two steps is told in
docs/decisions/0034-batches.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from jobbridge.errors import NotMigrated

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: A batch without jobs is kept so long after its end.
KEPT = timedelta(days=7)
_PRUNE_EVERY = 3600.0


class BatchService:
    """See the module.

    Args:
        app: Whose jobs.
    """

    name = "batches"
    interval = timedelta(seconds=60)  # a backstop: whoever ends a job looks at its batch

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._prune_at = 0.0

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Look for batches in which something was left undone, and do it; delete what nobody needs any more."""
        try:
            done = {"batches": self._app.batches.sweep(stopped)}
        except NotMigrated:
            return {}  # tables of a release before: they have no batches
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + _PRUNE_EVERY
            done["pruned"] = self._app.batches.store.prune(KEPT)
        return done

"""Deletes what is past its retention: jobs with all that is theirs, the history of schedules, keys whose time is over.

Jobs are kept for ever unless a setting or a tenant's rule says otherwise. Nothing that is open is deleted, and of
schedules only those that somebody deleted. What Celery calls `result_expires` is about the keys (groups, chords,
custom states); a job's result goes with its row.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from jobbridge.maintenance.portions import in_portions
from jobbridge.store.access import idempotency
from jobbridge.store.access.links import LinkStore
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.jobs import singletons
from jobbridge.store.jobs.open_jobs import BEGINNING
from jobbridge.store.waits import waits
from jobbridge.store.workers.retention import prune, shortest_retention

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Jobs that one statement reads: a few tens of milliseconds, also when all of them go.
BATCH = 1000
#: How long one run may go on; the next one goes on where it stopped.
SECONDS = 5.0
#: Between two passes over what is old.
REST = timedelta(minutes=10)
#: A key is in this list for so long after its job's end, at least.
SINGLETONS = timedelta(days=1)
#: So long an event is kept that nobody waits for.
EVENTS = timedelta(days=90)


class Pruner:
    """See the module.

    Args:
        app: Whose tables.
        rest: Between two passes.
    """

    name = "pruner"
    interval = timedelta(seconds=10)

    def __init__(self, app: Celery, *, rest: timedelta = REST) -> None:
        self._app = app
        self._rest = rest.total_seconds()
        self._after = BEGINNING
        self._next_pass_at = 0.0

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Go on with the pass over what is old."""
        if self._after == BEGINNING and time.monotonic() < self._next_pass_at:
            return {}
        counters: Counter[str] = Counter()
        until = time.monotonic() + SECONDS
        if self._after == BEGINNING:
            counters += self._prune_lesser(stopped, until)
        while not stopped.is_set() and time.monotonic() < until:
            if self._prune_portion(counters):
                self._after, self._next_pass_at = BEGINNING, time.monotonic() + self._rest
                break
        return counters

    def _prune_portion(self, counters: Counter[str]) -> bool:
        """Delete among the next jobs; whether the pass is over."""
        database, retention = self._app.database, self._app.settings.retention
        shortest = shortest_retention(database, retention)
        if shortest is None:
            return True
        portion = prune(database, retention, shortest=shortest, after=self._after, limit=BATCH)
        if portion is None:
            return True
        self._after = portion.last
        counters.update(jobs=portion.jobs, steps=portion.steps)
        return portion.read < BATCH

    def _prune_lesser(self, stopped: threading.Event, until: float) -> Counter[str]:
        """Delete keys whose time is over, singleton keys and events of nobody, old fires, deleted schedules."""
        app, counters = self._app, Counter[str]()
        counters["keys"] += in_portions(lambda: app.keys.delete_expired(limit=BATCH), BATCH, stopped, until)
        counters["singletons"] += singletons.prune(app.database, older_than=SINGLETONS)
        counters["requests"] += idempotency.delete_old(app.database, limit=10 * BATCH)
        counters["sign_outs"] += AccessStore(app.database).delete_sign_outs(limit=10 * BATCH)
        counters["links"] += LinkStore(app.database).delete_expired(limit=10 * BATCH)
        counters["events"] += waits.delete_kept(app.database, older_than=EVENTS, limit=10 * BATCH)
        longest = max(app.settings.retention.values(), default=None)
        if longest is not None:
            counters["fires"] += app.schedules.store.prune(older_than=longest, limit=10 * BATCH)
        return counters

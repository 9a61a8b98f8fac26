"""Deletes what is past its retention: jobs with all that is theirs, the history of schedules, keys whose time is over.

Jobs are kept for ever unless a setting or a tenant's rule says otherwise. Nothing that is open is deleted, and of
schedules only those that somebody deleted. What Celery calls `result_expires` is about the keys (groups, chords,
custom states); a job's result goes with its row.

Where the tables are in partitions (decision 0035) a pass begins with those: the next ones are made, and one of which
all that is in it is past its retention goes as a whole. Rows are then deleted only in the default partition, and in
old ones of which too many are kept for longer.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.maintenance.portions import in_portions
from jobbridge.store.access import idempotency
from jobbridge.store.access.links import LinkStore
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.jobs import singletons
from jobbridge.store.jobs.open_jobs import BEGINNING
from jobbridge.store.partitions.sweep import sweep
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
        #: Where rows are still to be deleted in this pass: partitions, or None, the whole table.
        self._left: list[str | None] = []
        self._next_pass_at = 0.0

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Go on with the pass over what is old."""
        if not self._left and time.monotonic() < self._next_pass_at:
            return {}
        counters: Counter[str] = Counter()
        until = time.monotonic() + SECONDS
        if not self._left:
            counters += self._prune_lesser(stopped, until)
            self._left = self._drop_partitions(counters, stopped)
        while self._left and not stopped.is_set() and time.monotonic() < until:
            if self._prune_portion(counters, self._left[0]):
                self._after = BEGINNING
                self._left.pop(0)
        if not self._left:
            self._next_pass_at = time.monotonic() + self._rest
        return counters

    def _drop_partitions(self, counters: Counter[str], stopped: threading.Event) -> list[str | None]:
        """Look after partitions, if there are any; gives where rows are to be deleted."""
        database, retention = self._app.database, self._app.settings.retention
        kept_for = shortest_retention(database, retention)
        with database.connection() as connection:
            swept = sweep(
                connection, retention, shortest=kept_for, now=datetime.now(UTC), stopped=stopped.is_set
            )
        if swept is None:
            return [None]
        counters.update(partitions=len(swept.dropped), partitions_made=len(swept.made), jobs=swept.jobs)
        return [*swept.by_row]

    def _prune_portion(self, counters: Counter[str], partition: str | None) -> bool:
        """Delete among the next jobs; whether there are no more."""
        database, retention = self._app.database, self._app.settings.retention
        shortest = shortest_retention(database, retention)
        if shortest is None:
            return True
        portion = prune(
            database, retention, shortest=shortest, after=self._after, limit=BATCH, partition=partition
        )
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

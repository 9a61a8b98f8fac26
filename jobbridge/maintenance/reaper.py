"""Looks after the jobs of workers that died.

Most need nothing: their message is in the broker still (or their workflow in Temporal), and another worker has it
within seconds. The others are told apart by asking the broker, and end by `orphans`.

A worker counts as dead when the lock on its number was free in each look for 15 seconds, and Postgres has not just
begun.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.core.keys import Engine
from jobbridge.maintenance.orphans import is_answerable, look_for_messages, settle
from jobbridge.maintenance.sightings import Sightings
from jobbridge.store.jobs.open_jobs import BEGINNING, OpenJob, begun_by

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Jobs at a time.
BATCH = 500


class Reaper:
    """Ends what died with its worker; see the module.

    Args:
        app: Whose jobs.
        sightings: Workers that were seen dead.
    """

    name = "reaper"
    interval = timedelta(seconds=5)

    def __init__(self, app: Celery, sightings: Sightings[int] | None = None) -> None:
        self._app = app
        self._sightings = Sightings[int]() if sightings is None else sightings

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Look after the jobs of those who have been dead for long enough, then take them off the list."""
        listed = [worker.number for worker in self._app.workers.all() if not worker.is_alive]
        dead = self._sightings.confirm(sorted(self._app.workers.dead_among(listed)) if listed else [])
        if not dead:
            return {}
        counters = Counter({"buried": len(dead)})
        after = BEGINNING
        # By portions, each after the last: a job whose message is there stays as it is until another worker begins it.
        while jobs := begun_by(self._app.database, dead, Engine.CELERY, after=after, limit=BATCH):
            counters += self._settle([job for job in jobs if is_answerable(self._app, job)])
            if stopped.is_set():
                return counters  # whoever leads next begins anew: the workers are on the list still
            after = jobs[-1].created_at, jobs[-1].key.job_id
            if len(jobs) < BATCH:
                break
        self._app.workers.remove(dead)
        return counters

    def _settle(self, jobs: list[OpenJob]) -> Counter[str]:
        now = datetime.now(UTC)
        # One that is kept comes again with its message; should that be lost too, the reconciler finds the job.
        gone = look_for_messages(self._app, jobs).gone
        ends = [settle(self._app, job, letter, now=now) for job, letter in gone]
        return Counter(end for end in ends if end is not None)

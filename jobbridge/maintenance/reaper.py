"""Looks after the jobs of workers that died.

Most need nothing: their message is in the broker still (or their workflow in Temporal), and another worker has it
within seconds. The others are told apart by asking the broker, and end by `orphans`.

Who is dead is said by `jobbridge.postgres.presence`. A worker of the release before has no row there: it counts as
dead when its lock was free in each look for 15 seconds.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import kombu.exceptions

from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseUnavailable
from jobbridge.maintenance.orphans import is_answerable, look_for_messages, settle
from jobbridge.maintenance.sightings import Sightings
from jobbridge.postgres import presence
from jobbridge.store.jobs.open_jobs import BEGINNING, OpenJob, begun_by

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Jobs at a time.
BATCH = 500


class Reaper:
    """Ends what died with its worker; see the module.

    Args:
        app: Whose jobs.
        sightings: Workers of the release before that were seen dead.
    """

    name = "reaper"
    interval = timedelta(seconds=15)

    def __init__(self, app: Celery, sightings: Sightings[int] | None = None) -> None:
        self._app = app
        self._sightings = Sightings[int]() if sightings is None else sightings
        self._judge = presence.Judge()

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Look after the jobs of the dead, then take them off the list."""
        dead = self._dead([worker.number for worker in self._app.workers.all() if not worker.is_alive])
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

    def _dead(self, listed: Sequence[int]) -> list[int]:
        if listed:
            self._look()
        judged = self._app.workers.dead_among(listed) if listed else set()
        confirmed = self._sightings.confirm(sorted(each for each in judged if each <= presence.PROCESSES))
        return confirmed + sorted(each for each in judged if each > presence.PROCESSES)

    def _look(self) -> None:
        """Sweep as the broker's consumers do: there may be none, or none that is of this database."""
        parameters = presence.look_parameters(self._app.worker_number, self.interval.total_seconds())
        if dead := self._judge.dead(self._app.database.run(lambda own: presence.look(own, parameters))):
            self._bury(dead)

    def _bury(self, dead: list[int]) -> None:
        if not self._app.shares_database_with_broker:
            self._app.database.run(lambda own: own.execute(presence.FORGET, {"numbers": dead}))
            return
        with self._app.connection_for_write() as connection:
            try:
                connection.connect()
                connection.transport.bury(dead)
            except (*connection.connection_errors, kombu.exceptions.OperationalError) as error:
                raise DatabaseUnavailable(f"The broker cannot be reached: {error}") from error

    def _settle(self, jobs: list[OpenJob]) -> Counter[str]:
        now = datetime.now(UTC)
        # One that is kept comes again with its message; should that be lost too, the reconciler finds the job.
        gone = look_for_messages(self._app, jobs).gone
        ends = [settle(self._app, job, letter, now=now) for job, letter in gone]
        return Counter(end for end in ends if end is not None)

"""Compares the rows of jobs that the broker should have with what the broker has.

The other way round from the reaper: it walks over all open jobs, in portions, and finds those which neither a message
nor a living worker will bring on. Where millions are open a pass is long, so they are as rare as they are long.

Unknown is not absent: a job of another broker, or one whose worker's lock is held, is left alone.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Generic, TypeVar
from uuid import UUID

from jobbridge.broker.admin.lookup import FoundMessage
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.maintenance.orphans import is_answerable, look_for_messages, settle
from jobbridge.maintenance.sightings import Sightings
from jobbridge.store.jobs.open_jobs import BEGINNING, OpenJob, open_jobs

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

_Clue = TypeVar("_Clue")

#: Jobs at a time; and for how long in one run, in seconds: then the process's other services have their turn.
BATCH = 1000
SECONDS = 2.0
#: With so many sightings the pass waits until they are settled: each is looked at once more by itself.
SIGHTINGS = 1000
#: Nothing happened to the job for so long.
QUIET = timedelta(seconds=30)
#: From the end of one pass to the next: so long, or so many times what the pass took.
REST = timedelta(seconds=60)
SHARE = 50


class Walk:
    """Passes over the open jobs of an engine, a few portions at a time.

    Args:
        app: Whose jobs.
        engine: Which.
        quiet: Leave jobs to which something happened within this time.
        rest: Between two passes, at least.
    """

    def __init__(
        self, app: Celery, engine: Engine, *, quiet: timedelta = QUIET, rest: timedelta = REST
    ) -> None:
        self._app = app
        self._engine = engine
        self._quiet = quiet
        self._rest = rest.total_seconds()
        self._after: tuple[datetime, UUID] = BEGINNING
        self._next_pass_at = 0.0
        self._took = 0.0

    def portions(self, look: Callable[[Sequence[OpenJob]], bool], stopped: threading.Event) -> bool:
        """Show the next portions, until `look` says that it has enough; whether a pass is complete with them."""
        if self._after == BEGINNING and time.monotonic() < self._next_pass_at:
            return False
        began = time.monotonic()
        has_enough = False
        while not has_enough and not stopped.is_set() and time.monotonic() - began < SECONDS:
            jobs = open_jobs(
                self._app.database, self._engine, older_than=self._quiet, after=self._after, limit=BATCH
            )
            has_enough = look(jobs)
            if len(jobs) < BATCH:
                self._took += time.monotonic() - began
                self._begin_anew()
                return True
            self._after = jobs[-1].created_at, jobs[-1].key.job_id
        self._took += time.monotonic() - began
        return False

    def _begin_anew(self) -> None:
        self._next_pass_at = time.monotonic() + max(self._rest, SHARE * self._took)
        self._after, self._took = BEGINNING, 0.0


class Reconciler(ABC, Generic[_Clue]):
    """Walks over the open jobs of an engine, and settles what was wrong in two looks.

    Args:
        app: Whose jobs.
        quiet: Leave jobs to which something happened within this time.
        rest: Between two passes, at least.
        sightings: Of jobs that were wrong in one look.
    """

    name: str
    engine: Engine
    interval = timedelta(seconds=5)

    def __init__(
        self,
        app: Celery,
        *,
        quiet: timedelta = QUIET,
        rest: timedelta = REST,
        sightings: Sightings[OpenJob] | None = None,
    ) -> None:
        self._app = app
        self._walk = Walk(app, self.engine, quiet=quiet, rest=rest)
        self._sightings = Sightings[OpenJob]() if sightings is None else sightings
        self._found: list[OpenJob] = []

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Go on with the pass, and look once more at what was suspicious before.

        Raises:
            EngineUnavailable: The engine does not answer: nothing is known, so nothing is done.
        """
        counters = self._look_again()
        if len(self._found) < SIGHTINGS:
            self._walk.portions(self._look, stopped)
        return counters

    @abstractmethod
    def _wrong(self, jobs: Sequence[OpenJob]) -> Mapping[OpenJob, _Clue]:
        """Ask the engine: give those that it will not bring on, with what is known of each."""

    @abstractmethod
    def _settle(self, wrong: Mapping[OpenJob, _Clue]) -> Iterator[str | None]:
        """Bring the rows to where the engine is; gives how for each, None where it is left alone."""

    def _look(self, jobs: Sequence[OpenJob]) -> bool:
        self._found.extend(self._wrong(jobs))
        return len(self._found) >= SIGHTINGS

    def _look_again(self) -> Counter[str]:
        """Ask anew about what was seen once: of the job (is its row as it was?), and of the engine."""
        if not self._found:
            return Counter()
        wrong = self._wrong([job for job in self._found if self._is_as_it_was(job)])
        confirmed = self._sightings.confirm(wrong)
        counters = Counter(
            how for how in self._settle({job: wrong[job] for job in confirmed}) if how is not None
        )
        self._found = [job for job in wrong if job not in confirmed]
        return counters

    def _is_as_it_was(self, job: OpenJob) -> bool:
        row = self._app.jobs.get(job.key)
        was = (job.status, job.attempt, job.updated_at)
        return row is not None and (row.status, row.attempt, row.updated_at) == was

    def _dead(self, jobs: Iterable[OpenJob]) -> Collection[int]:
        """Give the numbers of those of their workers that are dead."""
        numbers = sorted({job.worker_number for job in jobs if job.worker_number is not None})
        return self._app.workers.dead_among(numbers) if numbers else set()


class BrokerReconciler(Reconciler["FoundMessage | None"]):
    """Ends jobs whose message is gone; see the module."""

    name = "reconciler"
    engine = Engine.CELERY

    def _wrong(self, jobs: Sequence[OpenJob]) -> Mapping[OpenJob, FoundMessage | None]:
        asked = [job for job in jobs if is_answerable(self._app, job)]
        gone = look_for_messages(self._app, asked).gone
        dead = self._dead(job for job, _ in gone if job.status is JobStatus.PROCESSING)
        # Without a number it began before there were numbers, or outside of a worker: nobody knows.
        return {
            job: letter
            for job, letter in gone
            if job.status is not JobStatus.PROCESSING or letter is not None or job.worker_number in dead
        }

    def _settle(self, wrong: Mapping[OpenJob, FoundMessage | None]) -> Iterator[str | None]:
        now = datetime.now(UTC)
        for job, letter in wrong.items():
            yield settle(self._app, job, letter, now=now)

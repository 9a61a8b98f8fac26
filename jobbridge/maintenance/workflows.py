"""Compares the rows of jobs that Temporal should have with their workflows.

What needs temporalio for that is in `jobbridge.temporal.reconcile.workflows`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from jobbridge.core.keys import Engine
from jobbridge.maintenance.reconciler import QUIET, REST, SIGHTINGS, Walk
from jobbridge.maintenance.sightings import Sightings
from jobbridge.store.jobs.open_jobs import OpenJob

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


class Settler(Protocol):
    """Asks an engine about jobs, and settles their rows: `jobbridge.temporal.reconcile.workflows`."""

    def ends_of(self, jobs: Sequence[OpenJob]) -> Mapping[OpenJob, Any]:
        """Give those that the engine does not run, and how they ended there."""
        ...

    def settle(self, job: OpenJob, end: Any, *, is_worker_dead: bool) -> str | None:
        """Bring the row to where the engine is; gives how, None when it is left alone."""
        ...


class WorkflowService:
    """Settles rows whose workflow is over or gone, when that was so in two looks.

    Args:
        app: Whose jobs.
        make_settler: Called at the first look.
        quiet: Leave jobs to which something happened within this time.
        rest: Between two passes, at least.
        sightings: Jobs without a running workflow.
    """

    name = "workflow-reconciler"
    interval = timedelta(seconds=5)

    def __init__(
        self,
        app: Celery,
        make_settler: Callable[[Celery], Settler],
        *,
        quiet: timedelta = QUIET,
        rest: timedelta = REST,
        sightings: Sightings[OpenJob] | None = None,
    ) -> None:
        self._app = app
        self._make_settler = make_settler
        self._walk = Walk(app, Engine.TEMPORAL, quiet=quiet, rest=rest)
        self._sightings = Sightings[OpenJob]() if sightings is None else sightings
        self._found: list[OpenJob] = []

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Go on with the pass, and look once more at what was suspicious before.

        Raises:
            EngineUnavailable: Temporal does not answer: nothing is known, so nothing is done.
        """
        settler = self._make_settler(self._app)
        counters = self._look_again(settler)
        if len(self._found) < SIGHTINGS:
            self._walk.portions(lambda jobs: self._look(settler, jobs), stopped)
        return counters

    def _look(self, settler: Settler, jobs: Sequence[OpenJob]) -> bool:
        self._found.extend(settler.ends_of(jobs))
        return len(self._found) >= SIGHTINGS

    def _look_again(self, settler: Settler) -> Counter[str]:
        counters: Counter[str] = Counter()
        if not self._found:
            return counters
        same = [job for job in self._found if self._is_as_it_was(job)]
        ends = settler.ends_of(same)
        confirmed = self._sightings.confirm(ends)
        numbers = sorted({job.worker_number for job in confirmed if job.worker_number is not None})
        dead = self._app.workers.dead_among(numbers) if numbers else set()
        for job in confirmed:
            how = settler.settle(job, ends[job], is_worker_dead=job.worker_number in dead)
            if how is not None:
                counters[how] += 1
        self._found = [job for job in ends if job not in confirmed]
        return counters

    def _is_as_it_was(self, job: OpenJob) -> bool:
        row = self._app.jobs.get(job.key)
        return row is not None and (row.status, row.attempt, row.updated_at) == (
            job.status,
            job.attempt,
            job.updated_at,
        )

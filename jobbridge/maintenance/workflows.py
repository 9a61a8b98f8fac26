"""Compares the rows of jobs that Temporal should have with their workflows, and workflows that run with their rows.

What needs temporalio for that is in `jobbridge.temporal.reconcile.workflows`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from jobbridge.core.keys import Engine
from jobbridge.maintenance.reconciler import QUIET, REST, Reconciler
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

    def overdue(self, *, quiet: timedelta) -> Sequence[Any]:
        """Give what the engine still runs although its job has ended, for so long already."""
        ...

    def end(self, overdue: Any) -> str | None:
        """End one of them as its row has ended; gives how, None when there was nothing to do."""
        ...


class WorkflowService(Reconciler[Any]):
    """Settles rows whose workflow is over or gone, and workflows whose row is.

    Args:
        app: Whose jobs.
        make_settler: Called at the first look.
        quiet: Leave jobs to which something happened within this time.
        rest: Between two passes, at least.
        options: As the others of `Reconciler`.
    """

    name = "workflow-reconciler"
    engine = Engine.TEMPORAL

    def __init__(
        self,
        app: Celery,
        make_settler: Callable[[Celery], Settler],
        *,
        quiet: timedelta = QUIET,
        rest: timedelta = REST,
        **options: Any,
    ) -> None:
        super().__init__(app, quiet=quiet, rest=rest, **options)
        self._make_settler = make_settler
        self._quiet = quiet
        self._pause = rest.total_seconds()
        self._ends_at = 0.0
        self._seen: set[Any] = set()

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Go on with the pass over the rows, and now and then look at what runs.

        Raises:
            EngineUnavailable: Temporal does not answer: nothing is known, so nothing is done.
        """
        counters = Counter(super().run(stopped))
        if time.monotonic() >= self._ends_at:
            counters += self._end_overdue(stopped)
            self._ends_at = time.monotonic() + self._pause
        return counters

    def _end_overdue(self, stopped: threading.Event) -> Counter[str]:
        """End what two looks in a row have found."""
        settler, counters = self._make_settler(self._app), Counter[str]()
        found = set(settler.overdue(quiet=self._quiet))
        for overdue in found & self._seen:
            if stopped.is_set():
                break
            if (how := settler.end(overdue)) is not None:
                counters[f"workflow {how}"] += 1
        self._seen = found
        return counters

    def _wrong(self, jobs: Sequence[OpenJob]) -> Mapping[OpenJob, Any]:
        return self._make_settler(self._app).ends_of(jobs)

    def _settle(self, wrong: Mapping[OpenJob, Any]) -> Iterator[str | None]:
        settler, dead = self._make_settler(self._app), self._dead(wrong)
        for job, end in wrong.items():
            yield settler.settle(job, end, is_worker_dead=job.worker_number in dead)

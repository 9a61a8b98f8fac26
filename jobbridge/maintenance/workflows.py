"""Compares the rows of jobs that Temporal should have with their workflows.

What needs temporalio for that is in `jobbridge.temporal.reconcile.workflows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from jobbridge.core.keys import Engine
from jobbridge.maintenance.reconciler import Reconciler
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


class WorkflowService(Reconciler[Any]):
    """Settles rows whose workflow is over or gone.

    Args:
        app: Whose jobs.
        make_settler: Called at the first look.
        options: As those of `Reconciler`.
    """

    name = "workflow-reconciler"
    engine = Engine.TEMPORAL

    def __init__(self, app: Celery, make_settler: Callable[[Celery], Settler], **options: Any) -> None:
        super().__init__(app, **options)
        self._make_settler = make_settler

    def _wrong(self, jobs: Sequence[OpenJob]) -> Mapping[OpenJob, Any]:
        return self._make_settler(self._app).ends_of(jobs)

    def _settle(self, wrong: Mapping[OpenJob, Any]) -> Iterator[str | None]:
        settler, dead = self._make_settler(self._app), self._dead(wrong)
        for job, end in wrong.items():
            yield settler.settle(job, end, is_worker_dead=job.worker_number in dead)

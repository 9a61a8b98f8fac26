"""Tasks with a strategy of their own (celery-batches): their jobs do not pass Celery's tracer, and end all the same."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.utils.imports import symbol_by_name

from jobbridge.app.control import list_jobs_that_wait_for_their_time
from jobbridge.app.worker.batches import call_with_many, complete_unseen, has_own_strategy, takes_many
from jobbridge.core.keys import Engine

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

_Step: Any = bootsteps.Step  # untyped


class UnseenRequest:
    """What is put in front of the request class of a task with a strategy of its own."""

    if TYPE_CHECKING:  # of Celery's Request
        app: Celery
        task: Any
        acknowledged: bool
        time_start: float | None

    def acknowledge(self) -> None:
        """Acknowledge; the pool has not accepted a request that has no start, so nobody has written how it ended."""
        if not self.acknowledged and self.time_start is None and not takes_many(self.task):
            complete_unseen(self.app, self.task, self)
        super().acknowledge()  # type: ignore[misc]  # Celery's Request, behind it


def adopt(task: Any) -> None:
    """Have the jobs of a task with a strategy of its own end in their rows. Again is harmless."""
    if takes_many(task):
        task._jobbridge_takes_many = call_with_many
    base = symbol_by_name(task.Request)
    if not issubclass(base, UnseenRequest):
        task.Request = type(base.__name__, (UnseenRequest, base), {"__module__": base.__module__})


class OwnStrategies(_Step):  # type: ignore[misc]  # untyped base
    """Adopt the tasks that have one, before the pool forks."""

    def create(self, worker: Any) -> None:
        list_jobs_that_wait_for_their_time()
        is_temporals = getattr(worker, "jobbridge_engine", Engine.CELERY) is Engine.TEMPORAL
        for task in worker.app.tasks.values():
            if not has_own_strategy(task):
                continue
            adopt(task)
            if is_temporals and takes_many(task):
                logger.warning(
                    "%r takes up to %d jobs at a time, and Temporal gives this worker no more than %d at once.",
                    task.name,
                    task.flush_every,
                    worker.max_concurrency or worker.concurrency,
                )

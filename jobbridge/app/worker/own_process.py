"""Pools that run tasks in the worker's own process (threads, solo, gevent): what Celery leaves out there.

- Time limits (`execute.time_limits`).
- A task that raises SystemExit: Celery hands that to the callback for results, which cannot read it, so that the
  message is neither acknowledged nor given back for as long as the worker lives (celery 5.7, concurrency/base.py,
  `apply_target`).
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import bootsteps
from celery.concurrency.prefork import TaskPool

from jobbridge.app.execute.time_limits import TimeLimits
from jobbridge.core.handlers import handler_of

logger = logging.getLogger(__name__)

_Step: Any = bootsteps.Step  # untyped


class TellFailures(_Step):  # type: ignore[misc]  # untyped base
    """Have a task that raised SystemExit fail as one that has lost its process does."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        return not isinstance(worker.pool, TaskPool)

    def create(self, worker: Any) -> None:
        apply = worker.pool.on_apply

        def on_apply(
            target: Any, args: Any = None, kwargs: Any = None, callback: Any = None, **options: Any
        ) -> Any:
            failed = options.get("error_callback")

            def tell(outcome: Any) -> Any:
                return failed(outcome) if failed and isinstance(outcome, ExceptionInfo) else callback(outcome)

            return apply(target, args, kwargs, callback=callback and tell, **options)

        worker.pool.on_apply = on_apply


class EnforceTimeLimits(_Step):  # type: ignore[misc]  # untyped base
    """Raise time limits in the threads that run tasks, and say what that cannot do."""

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        return not isinstance(worker.pool, TaskPool)

    def create(self, worker: Any) -> None:
        pool = type(worker.pool).__module__.rpartition(".")[2]
        limits = TimeLimits(soft=worker.soft_time_limit, hard=worker.time_limit, is_green=pool == "gevent")
        worker.app.time_limits = limits
        limited = with_hard_limits(worker.app)
        if limited or worker.time_limit:
            logger.warning(
                "worker.hard_limits_not_kept: the pool %r cannot stop a task. Its time limits are exceptions, raised "
                "as soon as the task runs Python again; a task that waits elsewhere, or catches them, goes on. Of "
                "%s. Use -P prefork where a limit must hold.",
                pool,
                "all tasks" if worker.time_limit else ", ".join(limited[:10]),
            )


def with_hard_limits(app: Any) -> list[str]:
    """Name the tasks that somebody gave a hard time limit; a handler's comes from its timeout."""
    return sorted(name for name, task in app.tasks.items() if task.time_limit and handler_of(task) is None)

"""Tell at once when something is scheduled that nobody can run: a warning, for a worker may be started later.

Asked from a list that is read at most twice a minute per process, so that sending pays nothing; it may therefore be
half a minute late to notice a worker, and the warning says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseError
from jobbridge.store.workers.workers import WorkerRow, WorkerStore

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: How long the list of workers is good for, and how often one warning is repeated; seconds.
FRESH = 30.0
REPEAT = 60.0


class Servers:
    """Who can run what, as of a moment ago.

    Args:
        workers: The list.
    """

    def __init__(self, workers: WorkerStore) -> None:
        self._workers = workers
        self._known: Sequence[WorkerRow] = ()
        self._read_at = float("-inf")
        self._warned_at: dict[tuple[str, str | None, Engine], float] = {}

    def warn_if_none(self, task: str, *, queue: str | None, engine: Engine) -> str | None:
        """Give the reason, and now and then log it, if no running worker can run the task; else None.

        Args:
            task: Its name.
            queue: Where it goes; None: that is not known here.
            engine: Which runs it.
        """
        now = time.monotonic()
        if now - self._read_at >= FRESH and not self._read(now):
            return None  # Postgres is away, which is not news for the caller
        of_engine = [worker for worker in self._known if worker.engine is engine]
        knowing = [worker for worker in of_engine if task in worker.tasks]
        if any(queue is None or queue in worker.queues for worker in knowing):
            return None
        reason = _reason(of_engine, knowing, queue, engine)
        key = (task, queue, engine)
        if now - self._warned_at.get(key, float("-inf")) >= REPEAT:
            self._warned_at[key] = now
            where = {"task": task, "queue": queue, "engine": engine.value}
            logger.warning("job.nobody_runs_it", extra={**where, "reason": reason})
        return reason

    def _read(self, now: float) -> bool:
        try:
            self._known, self._read_at = self._workers.alive(), now
        except DatabaseError:
            return False
        return True


def warn_if_nobody_runs(
    app: Celery, name: str, *, queue: str | None, engine: Engine | str | None, default_engine: Engine
) -> str | None:
    """Warn if no worker can run what was just scheduled; gives the reason, None if one can."""
    task: Any = app.tasks.get(name)
    chosen = engine or Engine.named_by(task) or default_engine
    return app.servers.warn_if_none(
        name, queue=queue or _queue_of(app, task), engine=Engine.parse(str(chosen))
    )


def _queue_of(app: Celery, task: Any) -> str | None:
    """Give the queue that a task goes to by itself; None where a router decides."""
    declared = getattr(handler_of(task), "queue", None) or getattr(task, "queue", None)
    if declared:
        return str(declared)
    return None if app.conf.task_routes else str(app.conf.task_default_queue)


def _reason(
    of_engine: Sequence[WorkerRow], knowing: Sequence[WorkerRow], queue: str | None, engine: Engine
) -> str:
    if not of_engine:
        return f"no worker of {engine.value} was running within the last half minute"
    if not knowing:
        return f"none of the {len(of_engine)} workers of {engine.value} knows the task"
    return f"none of the {len(knowing)} workers that know the task serves the queue {queue!r}"

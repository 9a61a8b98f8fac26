"""A task that this worker does not know and another one does, as during a rolling deployment: its message goes back.

Workers write into their rows what they know. A message of a task that some running worker of the same engine and queue
knows goes back uncounted, after a pause, so that this worker is not the one that always takes it; for as long as
`jobbridge_unknown_task_patience` says. Then, or if nobody knows it, the job fails as Celery has it (NotRegistered).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from jobbridge.app.signals import fail_unknown
from jobbridge.broker import UNCOUNTED
from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.workers.workers import WorkerRow

logger = logging.getLogger(__name__)

#: Before a message goes back, the first time and at most. Seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
#: The list of workers is good for so long. Seconds.
FRESH = 1.0
#: Messages that are remembered.
_KEPT = 10_000

_Step: Any = bootsteps.Step  # untyped


class UnknownTasks:
    """What one worker was given and does not know.

    Args:
        app: The worker's.
        engine: Whose messages it takes.
    """

    def __init__(self, app: Celery, engine: Engine) -> None:
        self._app = app
        self._engine = engine
        self._patience = float(app.conf.jobbridge_unknown_task_patience)
        self._seen: dict[str, tuple[float, int]] = {}  # since when, and how often
        self._workers: Sequence[WorkerRow] = ()
        self._read_at = float("-inf")

    def pause_for(self, task: str, task_id: str, queue: str) -> float | None:
        """Give how long to wait before the message goes back, in seconds; None: it is to fail."""
        now = time.monotonic()
        since, times = self._seen.pop(task_id, (now, 0))
        if now - since > self._patience or not self._is_known(task, queue, now):
            return None
        self._seen[task_id] = since, times + 1
        while len(self._seen) > _KEPT:
            del self._seen[next(iter(self._seen))]
        pause: float = min(FIRST_PAUSE * 2 ** min(times, 10), LONGEST_PAUSE)
        told = {"job_id": task_id, "task": task, "queue": queue}
        logger.warning(
            "job.not_known_here: %s goes back to %r: another worker knows it.", task, queue, extra=told
        )
        return pause

    def _is_known(self, task: str, queue: str, now: float) -> bool:
        try:
            if now - self._read_at >= FRESH:
                self._workers, self._read_at = self._app.workers.alive(), now
        except DatabaseError:
            return True  # it will be asked again
        return any(
            task in worker.tasks and queue in worker.queues and worker.engine is self._engine
            for worker in self._workers
            if worker.number != self._app.worker_number
        )


class GiveUnknownBack(_Step):  # type: ignore[misc]  # untyped base
    """Stand before Celery's own answer to a task that it does not know. On Temporal the bridge does."""

    def include_if(self, consumer: Any) -> bool:
        return getattr(consumer.controller, "jobbridge_engine", Engine.CELERY) is Engine.CELERY

    def create(self, consumer: Any) -> None:
        unknown, fail = UnknownTasks(consumer.app, Engine.CELERY), consumer.on_unknown_task

        def on_unknown_task(body: Any, message: Any, exc: Any) -> None:
            headers = message.headers or {}
            name, task_id, queue = str(headers.get("task")), str(headers.get("id")), _queue_of(message)
            pause = unknown.pause_for(name, task_id, queue) if headers.get("id") else None
            if pause is None:
                fail_unknown(consumer, message, name, queue)
                fail(body, message, exc)
                return
            consumer.timer.call_after(
                pause, message.reject_log_error, (logger, consumer.connection_errors, UNCOUNTED)
            )

        consumer.on_unknown_task = on_unknown_task


def _queue_of(message: Any) -> str:
    window = getattr(message.channel, "window", None)
    held = window.leases.get(message.delivery_tag) if window is not None else None
    return str(held[0].queue if held else (message.delivery_info or {}).get("routing_key"))

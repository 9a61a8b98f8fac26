"""What becomes of a job of the broker that no message will bring on any more.

Nothing is made up: the row may hold its arguments, but not what was to follow it (callbacks, the rest of a chain, a
chord), so a job whose message is gone ends here, and says so. Whoever wants it again has `jobbridge jobs retry`.

How a message can be gone while its job is open:

- it was acknowledged before its task ran (`acks_late=False`), and its worker died: at most once was asked for;
- it was acknowledged after its task, and the worker died, or Postgres was away for more than ten minutes, before the
  end was in the row;
- it became a dead letter, or was over its time, and whoever took it away died before he wrote that down;
- somebody purged the queue.

Error callbacks are not called: they were in the message.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from celery.exceptions import WorkerLostError

from jobbridge.app.execute.claim import is_at_most_once
from jobbridge.broker.admin.lookup import FoundMessage, find_messages
from jobbridge.core.envelope import HEADER
from jobbridge.core.events import Expired, Failed, JobEvent
from jobbridge.core.status import JobStatus
from jobbridge.store.jobs.open_jobs import OpenJob

if TYPE_CHECKING:
    from datetime import datetime

    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)


class Unsettled:
    """Jobs of which one statement said that they are open, and another what messages there are.

    Attributes:
        gone: Those without a message, and their dead letter if there is one.
        kept: Those that a message will bring on.
    """

    def __init__(self, jobs: Sequence[OpenJob], found: Iterable[FoundMessage]) -> None:
        by_id: dict[str, list[FoundMessage]] = {}
        for message in found:
            by_id.setdefault(message.correlation_id, []).append(message)
        self.gone: list[tuple[OpenJob, FoundMessage | None]] = []
        self.kept: list[OpenJob] = []
        for job in jobs:
            own = [message for message in by_id.get(job.task_id, ()) if _is_by(job, message)]
            if any(message.reason is None for message in own):
                self.kept.append(job)
            else:
                self.gone.append((job, own[-1] if own else None))


def look_for_messages(app: Celery, jobs: Sequence[OpenJob]) -> Unsettled:
    """Ask the broker; two statements and no join, since its tables may be elsewhere than the jobs'."""
    if not jobs:
        return Unsettled((), ())
    ids = [job.task_id for job in jobs]
    return Unsettled(jobs, app.database.run(lambda own: find_messages(own, ids)))


def is_answerable(app: Celery, job: OpenJob) -> bool:
    """Whether the broker that has its message can be asked at all."""
    return app.shares_database_with_broker and job.broker is None


def settle(app: Celery, job: OpenJob, dead_letter: FoundMessage | None, *, now: datetime) -> str | None:
    """End a job whose message is gone; gives how, or None when it went on meanwhile."""
    event = _end_of(app, job, dead_letter, now)
    if not app.recorder.record(event).applied:
        return None
    how = "expired" if isinstance(event, Expired) else "failed"
    details = {"job_id": job.task_id, "type": job.type, "worker": job.worker, "attempt": job.attempt}
    logger.warning("job.was_lost", extra={**details, "how": how, "error": getattr(event, "error", None)})
    return how


def _end_of(app: Celery, job: OpenJob, dead_letter: FoundMessage | None, now: datetime) -> JobEvent:
    is_running = job.status is JobStatus.PROCESSING
    if dead_letter is not None:
        return _failed(job, f"Dead letter: {dead_letter.reason}")
    if not is_running and job.expires_at is not None and job.expires_at <= now:
        return Expired(key=job.key)
    if not is_running:
        return _failed(
            job,
            "Its message is no longer in the broker: the queue was purged, or the message deleted. "
            f"Send it again with `jobbridge jobs retry {job.key.job_id}`.",
        )
    return _failed(job, _why_lost(app, job))


def _why_lost(app: Celery, job: OpenJob) -> str:
    task = app.tasks.get(job.type)
    again = f"look what it has done, then send it again with `jobbridge jobs retry {job.key.job_id}`."
    if is_at_most_once(task):
        return (
            f"WorkerLostError: The worker {job.worker} was lost while the task ran, and the task is not to be run "
            f"twice (acks_late=False): {again}"
        )
    return (
        f"WorkerLostError: The worker {job.worker} was lost when the task's message was acknowledged and its end not "
        f"written: {again}"
    )


def _failed(job: OpenJob, error: str) -> Failed:
    is_running = job.status is JobStatus.PROCESSING
    kind, _, text = (
        error.partition(": ") if error.startswith("WorkerLostError: ") else ("Exception", "", error)
    )
    return Failed(
        key=job.key,
        attempt=job.attempt if is_running else None,
        waiting_at=None if is_running else job.attempt,
        delivery=job.delivery,
        error=error,
        result=_as_result(kind, text),
    )


def _as_result(kind: str, text: str) -> dict[str, Any]:
    """Write an error as the result backend does, so that `AsyncResult.get` raises it."""
    module = WorkerLostError.__module__ if kind == WorkerLostError.__name__ else "builtins"
    return {"exc_type": kind, "exc_message": [text], "exc_module": module}


def _is_by(job: OpenJob, message: FoundMessage) -> bool:
    delivery = (message.headers.get(HEADER) or {}).get("delivery")
    return delivery is None or job.delivery is None or delivery == str(job.delivery)

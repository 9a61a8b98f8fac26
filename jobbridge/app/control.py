"""Celery's remote control, with what rows know beside it: revokes that nobody heard, jobs that wait for their time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery.app.control import Control
from celery.utils.functional import maybe_list
from celery.worker.control import Panel

from jobbridge.app.errors import commanding
from jobbridge.core.events import Cancelled
from jobbridge.core.keys import Engine, job_id_for
from jobbridge.core.status import WAITING
from jobbridge.errors import DatabaseError, EngineUnavailable

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.jobs.queries import JobRow

logger = logging.getLogger(__name__)

_Base: Any = Control  # the stubs leave out what is overridden here

#: So many jobs does `inspect scheduled` list for a worker.
MOST_SCHEDULED = 1000


class JobControl(_Base):  # type: ignore[misc]  # see _Base
    """Celery's `app.control`."""

    def revoke(
        self,
        task_id: str | UUID | Iterable[str | UUID],
        destination: Any = None,
        terminate: bool = False,
        **options: Any,
    ) -> Any:
        """Tell the workers, as Celery does; and the rows, which also workers know that start later.

        With `terminate` also jobs that run are cancelled in their rows at once.
        """
        told = str(task_id) if isinstance(task_id, str | UUID) else [str(each) for each in task_id]
        return super().revoke(told, destination=destination, terminate=terminate, **options)

    def broadcast(self, command: str, arguments: Any = None, *more: Any, **options: Any) -> Any:
        """Send a command to the workers: all that revoke does come by here, the command line's own, too.

        Raises:
            NotSent: Postgres does not take it. With a connection of the caller's: what its transport raises.
        """
        if command in ("revoke", "terminate"):
            told = dict(arguments or {})
            task_ids = told.get("task_id") or ()
            for each in [task_ids] if isinstance(task_ids, str | UUID) else task_ids:
                is_terminated = command == "terminate" or bool(told.get("terminate"))
                _remember(self.app, str(each), is_terminated=is_terminated)
        if command == "revoke_by_stamped_headers":
            _remember_stamps(self.app, dict(arguments or {}))
        if options.get("connection") is not None or any(more[1:]):
            # Whose connection it is asks its transport what an error means: a worker that joins others comes back.
            return super().broadcast(command, arguments, *more, **options)
        with commanding():
            return super().broadcast(command, arguments, *more, **options)

    def purge(self, connection: Any = None) -> int:
        """Discard all that waits in the app's queues; gives the number of messages."""
        if connection is not None:
            return int(super().purge(connection))
        with commanding():
            return int(super().purge())

    discard_all = purge


def _remember_stamps(app: Celery, told: dict[str, Any]) -> None:
    """Cancel the jobs that have one of these stamps by now; what is sent later is the running workers' matter."""
    from jobbridge.store.monitor.scheduled import stamped_jobs  # a worker does without it

    headers = told.get("headers") or {}
    if not isinstance(headers, dict):  # the command line's own: `name=value`
        pairs = [str(each).partition("=") for each in headers]
        headers = {name: value for name, _, value in pairs}
    stamps = {str(name): list(maybe_list(values) or ()) for name, values in headers.items()}
    try:
        task_ids = stamped_jobs(app.database, stamps)
    except DatabaseError as error:
        logger.warning("job.revoke_not_recorded", extra={"stamps": sorted(stamps), "error": str(error)})
        return
    for task_id in task_ids:
        _remember(app, task_id, is_terminated=bool(told.get("terminate")))


def _remember(app: Celery, task_id: str, *, is_terminated: bool) -> None:
    try:
        row = app.jobs.find(job_id_for(task_id))
        if row is None or not (row.status in WAITING or (is_terminated and not row.status.is_final)):
            return
        recorded = app.recorder.record(Cancelled(key=row.key, reason="revoked"))
        if recorded.applied and row.runner_type is Engine.TEMPORAL and row.status in WAITING:
            app.delivery(Engine.TEMPORAL).cancel(row.task_id, reason="revoked", cancelled_by=None)
    except (DatabaseError, EngineUnavailable) as error:
        # The workers are told all the same; and a row that is cancelled does not start, whatever Temporal does.
        logger.warning("job.revoke_not_recorded", extra={"job_id": task_id, "error": str(error)})


def purge_jobs(app: Celery, queue: str) -> int:
    """Cancel the jobs that wait on Temporal in a queue whose messages are purged; gives their number."""
    from jobbridge.store.monitor.scheduled import unstarted_jobs  # a worker does without it

    reason, cancelled = "The queue was purged.", 0
    for row in unstarted_jobs(app.database, queue):
        if not app.recorder.record(Cancelled(key=row.key, reason=reason)).applied:
            continue
        cancelled += 1
        try:
            app.delivery(Engine.TEMPORAL).cancel(row.task_id, reason=reason, cancelled_by=None)
        except EngineUnavailable as error:
            logger.warning("job.cancel_not_delivered", extra={"job_id": row.task_id, "error": str(error)})
    return cancelled


# -- inspect scheduled


def list_jobs_that_wait_for_their_time() -> None:
    """Have `inspect scheduled` list them: they wait in Postgres or Temporal, and no worker has them in a timer."""
    own = Panel.data["scheduled"]
    if getattr(own, "is_jobbridge", False):
        return

    def scheduled(state: Any, **options: Any) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = own(state, **options)
        if getattr(state.app, "is_jobbridge", False):
            told += list(_scheduled(state))
        return told

    scheduled.is_jobbridge = True  # type: ignore[attr-defined]  # a mark
    Panel.data["scheduled"] = Panel.data["dump_schedule"] = scheduled


def _scheduled(state: Any) -> Iterator[dict[str, Any]]:
    from jobbridge.store.monitor.scheduled import scheduled_jobs

    app: Celery = state.app
    queues = [queue.name for queue in state.consumer.task_consumer.queues]
    engine = getattr(state.consumer.controller, "jobbridge_engine", Engine.CELERY)
    try:
        rows = scheduled_jobs(app.database, queues, engine, limit=MOST_SCHEDULED)
    except DatabaseError as error:
        logger.warning("inspect.scheduled_not_read", extra={"error": str(error)})
        return
    for row in rows:
        if row.run_at is not None:
            yield {"eta": row.run_at.isoformat(), "priority": 6, "request": _request(row, state)}


def _request(row: JobRow, state: Any) -> dict[str, Any]:
    """Give what Celery's `Request.info` gives of a request that it holds."""
    arguments = row.metadata.get("data")
    known = arguments if isinstance(arguments, dict) and set(arguments) == {"args", "kwargs"} else {}
    return {
        "id": row.task_id,
        "name": row.type,
        "type": row.type,
        "args": known.get("args", [] if arguments is None else [arguments]),
        "kwargs": known.get("kwargs", {}),
        "hostname": state.hostname,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {"exchange": "", "routing_key": row.queue, "priority": row.priority},
        "worker_pid": None,
    }

"""The start of an attempt, on both engines: the claim of the row.

Celery's tracer calls a task's `before_start` inside its own error handling, so this is where an attempt can be
refused (celery 5.7, app/trace.py: what a signal's receiver raises is logged and dropped, what `before_start` raises is
an outcome). Every task of the app gets it in front of its own.

What is done about each kind of fault (`jobbridge.postgres.faults`; lost and transient arrive as DatabaseUnavailable,
when they were tried again already):

| | lost, transient | refused | wrong |
|---|---|---|---|
| starting | CE: goes back, uncounted; acknowledged early: waits. EE: runs, written later | runs, logged | goes back |
| progress | logged | logged | logged |
| ending | waits, up to `PATIENCE` | logged | written if it can be, logged |
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from billiard.process import current_process
from celery import states
from celery.app.task import Task
from celery.exceptions import Ignore, Reject
from celery.utils.objects import mro_lookup

from jobbridge.app.execute import carried, tenancy
from jobbridge.app.execute.durable.suspending import called
from jobbridge.app.execute.replacing import await_canvas
from jobbridge.app.execute.returning import give_back
from jobbridge.app.execute.together import Follows, in_one_transaction, patiently, together
from jobbridge.app.loops.submission import Sending
from jobbridge.app.routing import queue_of
from jobbridge.broker.errors import NotNow, SessionLost
from jobbridge.core.envelope import HEADER
from jobbridge.core.events import CONTENDED, QUEUE_PAUSED, JobEvent, Recorded, Replaced, Started
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.errors import DatabaseError, DatabaseUnavailable, NotMigrated, SchemaTooNew
from jobbridge.store.workers.queue_pauses import tell_workers

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Run:
    """One attempt while it runs; lives on the task's request.

    Attributes:
        attempt: None when the row could not be written: the job runs all the same, unrecorded.
        recorded: Its end is in the row.
        continued: A further message for the same job was sent from inside.
        replaced: `self.replace` was called.
        replaced_by_canvas: With more than one task.
        refused: It may not run.
        owed: Its start, which could not be written; it is written before its end.
        is_carried: Its worker's parent has claimed the row, and may be left to write its end.
        follows: What is to be sent with its end.
    """

    key: JobKey
    task_id: str
    delivery: UUID | None
    engine: Engine
    retries: int
    attempt: int | None = None
    recorded: bool = False
    continued: bool = False
    replaced: bool = False
    replaced_by_canvas: bool = False
    refused: bool = False
    owed: Started | None = None
    is_carried: bool = False
    follows: Follows | None = None


def is_at_most_once(task: Any) -> bool:
    """Whether the task's author chose that it may be lost with its worker, but never runs twice.

    A Temporal worker acknowledges each task late, and notes there what its author chose.
    """
    return task is not None and (not task.acks_late or bool(getattr(task, "jobbridge_acks_early", False)))


class AttemptRefused(Ignore):
    """The job was cancelled, ended, or runs elsewhere: this attempt does not start."""


_ATTRIBUTE = "jobbridge_run"
_CALLED = "jobbridge_called"


def run_of(request: Any) -> Run | None:
    """Give the attempt of a task's request, once it was claimed."""
    run = getattr(request, _ATTRIBUTE, None)
    return run if isinstance(run, Run) else None


def attach(request: Any, run: Run) -> None:
    """Have `run_of` give it for that request."""
    setattr(request, _ATTRIBUTE, run)


def current_run(app: Celery) -> Run | None:
    """Give the attempt that the calling code runs in."""
    task = app.current_worker_task
    return run_of(task.request) if task is not None else None


def in_pool_child() -> bool:
    """Whether this process is a forked child of a worker's pool (only those have an index in billiard)."""
    return getattr(current_process(), "index", None) is not None


def tracked(base: Any) -> Any:
    """Give a subclass of a task class that claims the row before each attempt."""
    if getattr(base, "_jobbridge_tracked", False):
        return base
    custom = mro_lookup(base, "__call__", stop={Task, object}, monkey_patched=["celery.app.task"])
    own = {"abstract": True, "__module__": base.__module__, "_jobbridge_calls_run": custom is None}
    return type(base.__name__, (_Tracked, base), own)


class _Tracked(Sending):
    """What is put in front of a task class; see `tracked`."""

    _jobbridge_tracked = True
    _jobbridge_calls_run: bool
    #: Where a strategy of its own has it called with many requests (`batches`): who keeps their books then.
    _jobbridge_takes_many: Any = None
    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self.request_stack.top  # type: ignore[attr-defined]  # the task class behind it
        is_tracers = request is not None and not request.called_directly and not hasattr(request, _CALLED)
        if not is_tracers:
            call = super().__call__  # type: ignore[misc]  # the task class behind it
            if self._jobbridge_takes_many and args and isinstance(args[0], list):
                return self._jobbridge_takes_many(self, call, *args, **kwargs)
            return call(*args, **kwargs)
        setattr(request, _CALLED, True)
        call = self.run if self._jobbridge_calls_run else super().__call__  # type: ignore[attr-defined, misc]
        value = called(self, request, call, args, kwargs)
        run = run_of(request)
        if run is not None and may_end_together(self.app, run):  # type: ignore[attr-defined]  # the task class behind it
            run.follows = Follows.taken_from(request)
        return value

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        claim(self)
        super().before_start(task_id, args, kwargs)  # type: ignore[misc]  # the task class behind it

    def replace(self, sig: Any) -> Any:
        run = run_of(self.request)  # type: ignore[attr-defined]  # the task class behind it
        if run is not None:
            run.replaced, run.replaced_by_canvas = True, bool(sig.subtask_type)
        return super().replace(sig)  # type: ignore[misc]  # the task class behind it

    def on_replace(self, sig: Any) -> Any:
        run = run_of(self.request)  # type: ignore[attr-defined]  # the task class behind it
        send = super().on_replace  # type: ignore[misc]  # the task class behind it
        app: Celery = self.app  # type: ignore[attr-defined]  # the task class behind it
        if run is None or not run.replaced_by_canvas or not may_end_together(app, run) or run.attempt is None:
            return send(sig)
        # A canvas ends with this job's id, sent by whoever runs its last part but one: that may be before this attempt
        # has ended. So the row is given up, and the canvas sent, in one transaction.
        replaced = Replaced(key=run.key, attempt=run.attempt)

        def give_up(_: bool) -> Ignore:
            with in_one_transaction(app) as opened:
                if not opened.record(replaced).applied:
                    # It was cancelled; or this was done before, and the answer was lost.
                    return Ignore("The job goes on elsewhere, or was cancelled.")
                await_canvas(app, opened.connection, run.task_id, sig)
                try:
                    send(sig)
                except Ignore as sent:
                    return sent
            raise AssertionError("Celery's replace() has not raised Ignore")

        outcome = patiently(give_up, event="Replaced", job_id=run.task_id)
        run.continued = True
        raise outcome


def may_end_together(app: Celery, run: Run) -> bool:
    """Whether what follows from an attempt's end can be sent in the end's own transaction."""
    has_row = run.attempt is not None or run.owed is not None
    return has_row and app.shares_database_with_broker and not app.conf.task_always_eager


def is_untracked(request: Any) -> bool:
    """Whether it came without a row: `track=False`, or one message for many workers."""
    return bool((getattr(request, HEADER, None) or {}).get("untracked"))


def identify(request: Any) -> Run | None:
    """Read from a request whose attempt of which job it is; None for what is no job (eager, broadcast)."""
    header = getattr(request, HEADER, None) or {}
    if getattr(request, "is_eager", False) or is_untracked(request) or not request.id:
        return None
    delivery = header.get("delivery")
    return Run(
        key=JobKey(tenant=TenantId(header.get("tenant") or SYSTEM_TENANT), job_id=job_id_for(request.id)),
        task_id=request.id,
        delivery=UUID(delivery) if delivery else None,
        engine=Engine(header.get("engine") or Engine.CELERY),
        retries=int(request.retries or 0),
    )


def claim(task: Any) -> None:
    """Take the row for this attempt.

    Raises:
        AttemptRefused: It must not start.
        Reject: It goes back, for nothing runs unrecorded. Postgres is away. Or the tables do not serve this release,
            and a worker of another one takes it. Or another worker has begun it and lives: Temporal lost sight of that
            one, and this one must wait for it. Or the queue is paused, and what was taken of it waits like the rest.
    """
    request = task.request
    run = identify(request)
    if run is None:
        return
    attach(request, run)
    tenancy.enter(run.key.tenant)
    begun = carried.begun_in(request)
    if begun is not None and in_pool_child():
        run.attempt, run.is_carried, begun_at = begun
        if time.monotonic() - begun_at > carried.LATE:
            _look_again(task.app, run)
        return
    _acknowledge_first(task, run)
    # What must not run twice has begun by the engine's books, and cannot go back: it waits for Postgres.
    is_patient = is_at_most_once(task)
    write = task.app.recorder.record if not is_patient else lambda event: _patiently(task.app, event)
    started = started_by(task, request, run)
    try:
        recorded = write(started)
    except DatabaseUnavailable as error:
        if not is_patient and (run.engine is Engine.TEMPORAL or task.app.shares_database_with_broker):
            # Not counted: a database that is full or read-only for a while makes no dead letter of a job.
            _give_back(run, str(error))
        run.owed = started
        logger.warning("job.start_not_recorded", extra={"job_id": run.task_id, "error": str(error)})
        return
    except (NotMigrated, SchemaTooNew) as error:
        logger.error("job.given_back", extra={"job_id": run.task_id, "reason": str(error)})
        _have_workers_look(task.app)
        _give_back(run, str(error))
    except DatabaseError as error:
        # A right is missing, say: the books are wrong, the job is not. It runs (FEATURES, story 4).
        logger.error("job.start_not_recorded", extra={"job_id": run.task_id, "error": str(error)})
        return
    if not recorded.applied:
        run.refused = True
        if recorded.reason == QUEUE_PAUSED:
            logger.info("job.given_back", extra={"job_id": run.task_id, "reason": QUEUE_PAUSED})
            _have_workers_look(task.app)
            _give_back(run, QUEUE_PAUSED, pauses_once=True)
        if recorded.reason == CONTENDED and (task.acks_late or run.engine is Engine.TEMPORAL):
            raise Reject(CONTENDED, requeue=True)
        if recorded.status in _COUNTED and request.chord:
            _repeat_chord_part(task, recorded.status)
        logger.warning("job.attempt_refused", extra={"job_id": run.task_id, "reason": recorded.reason})
        raise AttemptRefused(f"{run.task_id} does not start: {recorded.reason}")
    run.attempt = recorded.attempt


def _look_again(app: Celery, run: Run) -> None:
    """Do not begin what was cancelled while it waited for its process; if Postgres cannot say, it was begun."""
    with suppress(DatabaseError):
        row = app.jobs.get(run.key)
        if row is not None and (row.status is not JobStatus.PROCESSING or row.attempt != run.attempt):
            run.refused = True
            logger.warning("job.attempt_refused", extra={"job_id": run.task_id, "reason": row.status})
            raise AttemptRefused(f"{run.task_id} does not start: it is {row.status}")


def _give_back(run: Run, reason: str, *, pauses_once: bool = False) -> NoReturn:
    run.refused = True
    give_back(reason, pauses_once=pauses_once)


def _have_workers_look(app: Celery) -> None:
    # The parent has not heard yet, or never will: a notification can be lost with a session.
    with suppress(DatabaseError):  # then it looks by itself, within a minute
        tell_workers(app.database)


def _acknowledge_first(task: Any, run: Run) -> None:
    """Have it in the broker that a task which must not run twice began, where that is not so already."""
    if task.app.acknowledge_now is None or not is_at_most_once(task):
        return
    try:
        task.app.acknowledge_now(run.task_id)
    except (SessionLost, NotNow) as error:
        run.refused = True
        raise AttemptRefused(f"{run.task_id} does not start: it cannot be acknowledged ({error})") from None


_COUNTED = {JobStatus.COMPLETED: states.SUCCESS, JobStatus.FAILED: states.FAILURE}


def _repeat_chord_part(task: Any, status: JobStatus) -> None:
    # The row's end and the chord's count are two transactions, and the worker may die between them.
    repeat = getattr(task.backend, "repeat_chord_part", None)
    if repeat is not None:
        repeat(task.request, _COUNTED[status])


def record(app: Celery, event: JobEvent) -> Recorded | None:
    """Write an event; bookkeeping never fails a handler, so trouble is logged and None returned.

    Where an end is being written with what follows from it, it is part of that, and so is the trouble.
    """
    opened = together()
    if opened is not None:
        return opened.record(event)
    try:
        return app.recorder.record(event)
    except DatabaseError as error:
        _log_unrecorded(event, error)
        return None


def record_end(app: Celery, event: JobEvent) -> Recorded | None:
    """Write how an attempt ended, as `record` does, but wait while Postgres is away.

    The handler is done, so nothing of the user's is blocked; and the message will be acknowledged: what is not in
    the row then would never come there. For the same reason it is tried where the tables have changed meanwhile.
    """
    opened = together()
    if opened is not None:
        return opened.record(event)
    try:
        return _patiently(app, event, check_schema=False)
    except DatabaseError as error:
        _log_unrecorded(event, error)
        return None


def record_owed_start(app: Celery, run: Run | None) -> None:
    """Write the start that could not be written when it was; without it the row would wait for ever."""
    if run is None or run.owed is None:
        return
    started, run.owed = run.owed, None
    if (recorded := record_end(app, started)) is not None and recorded.applied:
        run.attempt = recorded.attempt


def _patiently(app: Celery, event: JobEvent, *, check_schema: bool = True) -> Recorded:
    return patiently(
        lambda _: app.recorder.record(event, check_schema=check_schema),
        event=type(event).__name__,
        job_id=str(event.key.job_id),
    )


def _log_unrecorded(event: JobEvent, error: DatabaseError) -> None:
    logger.error(
        "job.event_not_recorded",
        extra={"event": type(event).__name__, "job_id": str(event.key.job_id), "error": str(error)},
    )


def started_by(task: Any, request: Any, run: Run) -> Started:
    """Give the event of an attempt that is about to begin.

    Args:
        task: What runs.
        request: Celery's context of it.
        run: The same, identified.
    """
    header = getattr(request, HEADER, None) or {}
    info = request.delivery_info or {}
    return Started(
        key=run.key,
        task_id=run.task_id,
        type=task.name,
        engine=run.engine,
        delivery=run.delivery,
        queue=header.get("queue") or queue_of(task.app, info.get("exchange"), info.get("routing_key")),
        worker=request.hostname or "",
        worker_number=task.app.worker_number,
        redelivered=bool(info.get("redelivered")),
        goes_back=run.engine is Engine.CELERY and task.acks_late and task.app.shares_database_with_broker,
        max_attempts=None if task.max_retries is None else task.max_retries + 1,
        external_id=header.get("external_id") or run.task_id,
        external_run_id=header.get("external_run_id"),
        metadata=header.get("metadata") or {},
    )

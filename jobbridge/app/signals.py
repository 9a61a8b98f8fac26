"""Celery's signals, translated to job events.

One set of receivers for both engines: the tracer that sends most of these runs on both. They hold no rules; the
recorder decides what an event may change. Celery logs and drops what a receiver raises (celery 5.7,
utils/dispatch/signal.py), and a killed process sends nothing: what is missing then comes with the next delivery.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import signals, states
from celery.app.task import get_actual_ignore_result  # type: ignore[attr-defined]  # missing in the stubs
from celery.exceptions import NotRegistered

from jobbridge.app.execute import carried, following, tenancy
from jobbridge.app.execute.claim import Run, identify, record, record_end, record_owed_start, run_of
from jobbridge.app.execute.killed import note_stopped
from jobbridge.app.paced import REPORTS
from jobbridge.core.envelope import HEADER
from jobbridge.core.events import HIDDEN, Cancelled, Completed, Expired, Failed, Replaced, Requeued
from jobbridge.core.shown import cut, error_line

logger = logging.getLogger(__name__)


def connect() -> None:
    """Attach the receivers; again is harmless."""
    for signal, receiver in (
        (signals.task_success, on_success),
        (signals.task_failure, on_failure),
        (signals.task_postrun, on_postrun),
        (signals.task_revoked, on_revoked),
        (signals.task_unknown, on_unknown),
        (signals.task_rejected, on_rejected),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"jobbridge.{receiver.__name__}")


def on_success(sender: Any = None, result: Any = None, **_: Any) -> None:
    """Close a job whose result is not kept in its row (ignored, or another result backend)."""
    run = _open_run(sender)
    if run is None or run.attempt is None:
        return
    completed = Completed(key=run.key, attempt=run.attempt, result_type=_hidden_if_ignored(sender))
    if run.follows is None:
        run.recorded = carried.put(run, completed, sender) or record_end(sender.app, completed) is not None
        return
    try:
        following.complete(sender.app, run, sender.request, result, lambda: record_end(sender.app, completed))
    except Exception as error:  # Celery would log it, and the job would be open for ever
        logger.exception("job.not_followed", extra={"job_id": run.task_id})
        record_end(
            sender.app, Failed(key=run.key, attempt=run.attempt, error=describe(error), delivery=run.delivery)
        )
    run.recorded = True


def on_failure(sender: Any = None, exception: Any = None, einfo: Any = None, **_: Any) -> None:
    """Close a failed job, from the pool child or (process lost, hard time limit) from the worker."""
    run = _open_run(sender) or _parents_run(sender)
    if run is None or run.recorded or run.refused:
        return
    limit, traceback = sender.app.settings.payload_limit, getattr(einfo, "traceback", None)
    event = Failed(
        key=run.key,
        attempt=run.attempt,
        error=cut(describe(exception), limit),
        traceback=None if traceback is None else cut(traceback, limit),
        delivery=run.delivery,
        result_type=_hidden_if_ignored(sender),
    )
    if not carried.put(run, event, sender):
        write = record_end if run.attempt is not None else record
        write(sender.app, event)
    run.recorded = True


def on_postrun(
    sender: Any = None, task_id: Any = None, state: Any = None, retval: Any = None, **_: Any
) -> None:
    """Note what ends an attempt without success, failure or retry: Ignore, replace, Reject."""
    REPORTS.close(str(task_id), writes=True)
    if _of_app(sender):
        sender.app.batches.note_end_of(sender.request)  # when this has returned, and its end is written
    if _of_app(sender) and run_of(sender.request) is not None:
        tenancy.leave()
    run = _open_run(sender)
    if run is not None and run.refused and run.is_carried:
        note_stopped(sender.app, sender.request)  # it was cancelled between its start and its process
    if run is None or run.attempt is None or run.refused or run.continued:
        return
    if state == states.IGNORED and run.replaced:
        record_end(sender.app, Replaced(key=run.key, attempt=run.attempt))
    elif state == states.IGNORED:
        record_end(sender.app, Completed(key=run.key, attempt=run.attempt, result_type=HIDDEN))
    elif state == states.REJECTED and getattr(retval, "requeue", False):
        record(sender.app, Requeued(key=run.key, attempt=run.attempt, reason=describe(retval)))


def on_revoked(
    sender: Any = None, request: Any = None, expired: bool = False, terminated: bool = False, **_: Any
) -> None:
    """Close a job that was revoked, terminated, or came after its time."""
    run = _of_app(sender) and identify(request)
    if run:
        event = Expired(key=run.key) if expired else Cancelled(key=run.key, reason="revoked")
        record(sender.app, event)
        if not terminated:  # Celery says so of a process before it has ended: its request tells when
            note_stopped(sender.app, request)


def on_unknown(
    sender: Any = None, message: Any = None, exc: Any = None, name: str = "", id: str = "", **_: Any
) -> None:
    """Fail a job whose task this worker does not know."""
    fail_unknown(sender, message, name)


def fail_unknown(consumer: Any, message: Any, name: str, queue: str | None = None) -> None:
    """Fail a job whose task this worker does not know, and no other one that serves the queue."""
    others = f", nor on any other that serves {queue!r}" if queue is not None else ""
    text = f"No task is registered under {name!r} on this worker{others}."
    result = {"exc_type": "NotRegistered", "exc_message": [text], "exc_module": NotRegistered.__module__}
    _fail_message(consumer, message, f"NotRegistered: {text}", result)


def on_rejected(sender: Any = None, message: Any = None, exc: Any = None, **_: Any) -> None:
    """Fail a job whose message cannot be read."""
    _fail_message(sender, message, f"The message was rejected: {describe(exc)}")


def on_dead_letter(app: Any, headers: dict[str, Any], reason: str) -> None:
    """Fail a job whose message the broker gave up on: it took its worker down too often, or was rejected."""
    run = _run_in(headers)
    if run is None:
        return
    error = f"Dead letter: {reason}"
    failed = Failed(key=run.key, attempt=None, error=error, delivery=run.delivery)
    if reason == "too_many_deliveries":
        loss = app.losses.take(run.task_id) or "the worker that ran it ended"
        error = f"Worker lost, too many times; at last {loss}. ({error})"
        told = {
            "exc_type": "WorkerLostError",
            "exc_message": [error],
            "exc_module": WorkerLostError.__module__,
        }
        failed = replace(failed, error=f"WorkerLostError: {error}", result=told)
    record(app, failed)


def on_expired(app: Any, headers: dict[str, Any]) -> None:
    """Close a job whose message the broker dropped because its time to live was over."""
    run = _run_in(headers)
    if run is not None:
        record(app, Expired(key=run.key))


def describe(exception: Any) -> str:
    """Give an error as one line for people."""
    if isinstance(exception, BaseException):
        return error_line(exception)
    return str(exception)


def _fail_message(consumer: Any, message: Any, error: str, result: Any = None) -> None:
    app: Any = getattr(consumer, "app", None)
    headers = getattr(message, "headers", None) or {}
    run = _run_in(headers) if _is_ours(app) else None
    if run is not None:
        record(
            app,
            Failed(
                key=run.key,
                attempt=None,
                error=error,
                result=result,
                delivery=run.delivery,
                type=headers["task"] if isinstance(headers.get("task"), str) else None,
                task_id=run.task_id,
                engine=run.engine,
                external_id=(headers.get(HEADER) or {}).get("external_id"),
            ),
        )


def _run_in(headers: Any) -> Run | None:
    """Tell which job a message is of; None: none, or it cannot be told by what the message says."""
    try:
        return identify(_HeaderView({**headers, "retries": 0})) if headers.get("id") else None
    except (ValueError, TypeError, AttributeError):
        return None


class _HeaderView:
    """A message's headers, read as a request is."""

    def __init__(self, headers: dict[str, Any]) -> None:
        self.__dict__.update({"retries": 0, **headers})


def _open_run(task: Any) -> Run | None:
    if not _of_app(task):
        return None
    run = run_of(task.request)
    if run is None or run.recorded:
        return None
    record_owed_start(task.app, run)
    return run


def _parents_run(task: Any) -> Run | None:
    # In the worker's parent process the request on the stack was not claimed there: no attempt number.
    return (
        identify(task.request) if _of_app(task) and run_of(task.request) is None and task.request.id else None
    )


def _hidden_if_ignored(task: Any) -> str | None:
    return HIDDEN if get_actual_ignore_result(task, task.request) else None


def _of_app(task: Any) -> bool:
    return _is_ours(getattr(task, "app", None))


def _is_ours(app: Any) -> bool:
    return bool(getattr(app, "is_jobbridge", False))

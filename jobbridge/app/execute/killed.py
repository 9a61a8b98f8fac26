"""What a worker's parent does for a process that was stopped.

At its hard time limit another attempt follows, if the retry policy allows one.

What raises the soft limit in the handler may be caught there, and then its process is killed: nobody is left in it who
would ask for the retry, so the worker's parent does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # not in the stubs
from celery._state import _task_stack  # type: ignore[attr-defined]  # missing in the stubs
from celery.exceptions import TimeLimitExceeded
from celery.worker import state as worker_state

from jobbridge.app.execute.claim import identify
from jobbridge.app.execute.together import in_one_transaction, is_away
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.errors import DatabaseError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)


def is_retried(request: Any, exc_info: Any) -> bool:
    """Send the next attempt of a job whose process is stopped at its hard limit; whether that was done.

    The row and the message are written in one transaction, and tried once: the worker's loop waits for it.

    Args:
        request: Celery's, in the worker's parent.
        exc_info: How it ended.
    """
    error = exc_info.exception
    error = error.exc if isinstance(error, ExceptionWithTraceback) else error
    spec = handler_of(request.task)
    if spec is None or not isinstance(error, TimeLimitExceeded) or worker_state.should_terminate:
        return False
    try:
        return _retry(request, spec, TimeLimitExceeded(*error.args))
    except Exception as trouble:  # whatever it is, Celery goes on: the job fails
        if not is_away(trouble):
            logger.exception("job.not_retried", extra={"job_id": request.id})
        return False


def _retry(request: Any, spec: Any, error: TimeLimitExceeded) -> bool:
    task, context = request.task, request._context
    retries = int(context.retries or 0)
    if not spec.retry.allows_another(error, retries + 1):
        return False
    app, run = task.app, identify(context)
    if run is None or not (app.shares_database_with_broker or run.engine is Engine.TEMPORAL):
        return False
    row = app.jobs.get(run.key)
    if row is None or row.status is not JobStatus.PROCESSING or row.delivery != run.delivery:
        return False
    run.attempt = row.attempt
    context.jobbridge_run, context.called_directly = run, False
    wait = spec.retry.wait_after(retries + 1, error).total_seconds()
    task.request_stack.push(context)
    _task_stack.push(task)  # what is sent now is sent by this job
    try:
        with in_one_transaction(app):
            task.signature_from_request(
                context, request.args, request.kwargs, countdown=wait, retries=retries + 1
            ).apply_async()
            if not run.continued:
                return False  # it was cancelled meanwhile, or goes on elsewhere
            task.backend.mark_as_retry(request.id, error, traceback=None, request=context)
    finally:
        _task_stack.pop()
        task.request_stack.pop()
    logger.warning(
        "Task %s[%s] was stopped at its hard time limit; again in %.1f s", task.name, request.id, wait
    )
    return True


def note_stopped(app: Celery, request: Any) -> None:
    """Note that nothing of a request runs here any more: if its job was cancelled, its singleton key is free."""
    run = identify(request)
    if run is None or app.worker_number is None:
        return
    try:
        app.recorder.note_stopped(run.key, worker_number=app.worker_number)
    except DatabaseError as error:  # the end of this worker says the same
        logger.warning("job.stop_not_recorded", extra={"job_id": run.task_id, "error": str(error)})

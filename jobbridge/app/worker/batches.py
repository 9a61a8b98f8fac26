"""Jobs that a task takes many of at a time, by a strategy of its own, as celery-batches has it.

Such a strategy collects requests in the worker's parent and hands them to the pool as one call of the task: Celery's
tracer does not see them one by one. That call is where their rows start and end.

| | |
|---|---|
| a job was cancelled meanwhile | it is left out of the call |
| the call returns | jobs of which the task has not said how they ended are completed, without a result |
| the call raises | they have failed |
| Postgres is away at the start | the call waits for it, as long as an end does |
| the worker dies | their messages come again |

What a strategy acknowledges that neither ran so nor by Celery's tracer is completed then (`complete_unseen`).

Source: celery-batches 0.11.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery.app.task import Context, Task

from jobbridge.app.execute.claim import (
    Run,
    attach,
    identify,
    record,
    record_end,
    record_owed_start,
    run_of,
    started_by,
)
from jobbridge.app.execute.together import patiently
from jobbridge.core.events import HIDDEN, Completed, Failed
from jobbridge.core.shown import cut, error_line
from jobbridge.core.status import WAITING
from jobbridge.errors import DatabaseError, DatabaseUnavailable

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)


def has_own_strategy(task: Any) -> bool:
    """Whether something else than Celery hands its requests to the pool."""
    return bool(task.Strategy != Task.Strategy)


def takes_many(task: Any) -> bool:
    """Whether its strategy is that of celery-batches."""
    return has_own_strategy(task) and hasattr(task, "flush_every") and hasattr(task, "flush")


def context_of(request: Any) -> Context:
    """Give Celery's context of a request that is none of Celery's, and has the message's headers."""
    headers = dict(getattr(request, "request_dict", None) or {})
    for name in ("delivery_info", "hostname"):
        headers[name] = getattr(request, name, None) or headers.get(name)
    return Context({**headers, "id": request.id})


def call_with_many(
    task: Any, call: Callable[..., Any], requests: list[Any], *args: Any, **kwargs: Any
) -> Any:
    """Call the task with those of the requests that may run, and keep their books."""
    taken = [request for request in requests if _begin(task, request)]
    if requests and not taken:
        return None
    try:
        value = call(taken, *args, **kwargs)
    except Exception as error:
        _end_all(task, taken, error)
        raise
    _end_all(task, taken, None)
    return value


def _begin(task: Any, request: Any) -> bool:
    """Start one job; False: it may not run."""
    context = context_of(request)
    run = identify(context)
    if run is None:
        return True
    attach(request, run)
    # It cannot go back to a paused queue: its strategy acknowledges all that it was given.
    started = replace(started_by(task, context, run), goes_back=False)
    try:
        recorded = patiently(lambda _: task.app.recorder.record(started), event="Started", job_id=run.task_id)
    except DatabaseUnavailable:
        run.owed = started
        return True
    except DatabaseError as error:
        logger.error("job.start_not_recorded", extra={"job_id": run.task_id, "error": str(error)})
        return True
    run.attempt = recorded.attempt
    if not recorded.applied:
        logger.warning("job.attempt_refused", extra={"job_id": run.task_id, "reason": recorded.reason})
    return bool(recorded.applied)


def _end_all(task: Any, requests: list[Any], error: Exception | None) -> None:
    for request in requests:
        run = run_of(request)
        if run is None or run.recorded:
            continue
        record_owed_start(task.app, run)
        if run.attempt is not None:
            record_end(task.app, _ended(task.app, run, run.attempt, error))


def _ended(app: Celery, run: Run, attempt: int, error: Exception | None) -> Completed | Failed:
    if error is None:
        return Completed(key=run.key, attempt=attempt, is_part=True, result_type=HIDDEN)
    line = cut(error_line(error), app.settings.payload_limit)
    return Failed(key=run.key, attempt=attempt, error=line, delivery=run.delivery, result_type=HIDDEN)


def complete_unseen(app: Celery, task: Any, request: Any) -> None:
    """Complete a job that is about to be acknowledged although nobody saw it start: its strategy has dealt with it."""
    run = identify(request._context)
    if run is None:
        return
    try:
        row = app.jobs.get(run.key)
    except DatabaseError as error:
        logger.warning("job.end_not_recorded", extra={"job_id": run.task_id, "error": str(error)})
        return
    if row is None or row.status not in WAITING or row.delivery != run.delivery:
        return
    logger.warning(
        "The strategy of %r has acknowledged job %s, which did not run by Celery's tracer: it is completed.",
        task.name,
        run.task_id,
    )
    recorded = record(app, replace(started_by(task, request._context, run), goes_back=False))
    if recorded is not None and recorded.applied:
        record(app, _ended(app, run, recorded.attempt, None))

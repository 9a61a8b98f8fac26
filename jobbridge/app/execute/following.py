"""What follows from an attempt's end: callbacks, the next link of a chain, error callbacks.

Celery's tracer sends them before the result is stored, each by itself. Here they are part of the end: `_Tracked` takes
them from the request when the task's function has returned, and they are sent in the transaction that records the end.
So a link that was completed has sent the next one, and one that was not completed has sent nothing: there is no death
in between, and Postgres is waited for as long as the end waits. Should a commit go through unseen, the end is refused
when it is tried again, and with it all the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.canvas import group, maybe_signature
from celery.exceptions import NotRegistered

from jobbridge.app.errors import NotSent
from jobbridge.app.execute.claim import Run
from jobbridge.app.execute.together import Follows, in_one_transaction, patiently
from jobbridge.core.events import Recorded
from jobbridge.errors import DatabaseError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)


class _AlreadyEnded(Exception):
    """The end does not apply: it was recorded before, or the job was cancelled meanwhile."""


def complete(
    app: Celery, run: Run, request: Any, value: Any, end: Callable[[], Recorded | None]
) -> Recorded | None:
    """Record that an attempt completed, and send what follows from that, all or nothing.

    Args:
        app: Whose job.
        run: The attempt.
        request: Its request, whose children are those sent so far.
        value: What the task returned.
        end: Records it.

    Returns:
        What was recorded; None: nothing, which the log tells.
    """
    follows, run.follows = run.follows, None
    assert follows is not None  # see those who call
    children = list(getattr(request, "children", None) or ())

    def work(_: bool) -> Recorded:
        request._children = list(children)  # Celery gives no other way
        with in_one_transaction(app):
            with app.batches.going_on(request):
                _send(app, follows, value, request)
            recorded = end()
            if recorded is None or not recorded.applied:
                raise _AlreadyEnded
        return recorded

    try:
        return patiently(work, event="Completed", job_id=run.task_id)
    except _AlreadyEnded:
        logger.info("job.end_refused", extra={"job_id": run.task_id})
        return None
    except DatabaseError as error:
        if _is_of_the_message(error):
            follows.give_back(request)
            raise
        details = {"event": "Completed", "job_id": run.task_id, "error": str(error)}
        logger.error("job.event_not_recorded", extra=details)
        return None
    except Exception:
        # Celery makes a failure of it, of which the chain and the error callbacks are told.
        follows.give_back(request)
        raise


def fail(
    app: Celery, run: Run, request: Any, mark: Callable[[], None], call_back: Callable[[list[Any]], None]
) -> None:
    """Record that an attempt failed, and tell all whom that concerns, all or nothing.

    Args:
        app: Whose job.
        run: The attempt.
        request: Its request.
        mark: Records it, and sends the request's error callbacks.
        call_back: Calls those error callbacks that are functions: once, when all that is committed.
    """
    errbacks = list(request.errbacks or ())
    called = [each for each in errbacks if _is_called_here(app, each)]

    def work(is_repeated: bool) -> None:
        with in_one_transaction(app) as opened:
            mark()
            if is_repeated and opened.recorded and not opened.recorded[0].applied:
                raise _AlreadyEnded

    request.errbacks = [each for each in errbacks if each not in called]
    try:
        patiently(work, event="Failed", job_id=run.task_id)
    except _AlreadyEnded:
        pass
    except DatabaseError as error:
        if _is_of_the_message(error):
            raise
        details = {"event": "Failed", "job_id": run.task_id, "error": str(error)}
        logger.error("job.event_not_recorded", extra=details)
    finally:
        request.errbacks = errbacks
    if called:
        call_back(called)


def _send(app: Celery, follows: Follows, value: Any, request: Any) -> None:
    """Send it as Celery's tracer does (celery 5.7, app/trace.py: `_dispatch_callbacks_and_chain`)."""
    info = request.delivery_info or {}
    options = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        "priority": info.get("priority") if app.conf.task_inherit_parent_priority else None,
    }
    callbacks: list[Any] = [maybe_signature(each, app=app) for each in follows.callbacks or ()]
    groups = [each for each in callbacks if isinstance(each, group)]
    singles = [each for each in callbacks if not isinstance(each, group)]
    if len(callbacks) > 1 and singles:
        singles = [group(singles, app=app)]
    for each in (*groups, *singles):
        each.apply_async((value,), **options)
    if follows.chain:
        link: Any = maybe_signature(follows.chain[-1], app=app)
        link.apply_async((value,), chain=follows.chain[:-1], **options)


def _is_of_the_message(error: DatabaseError) -> bool:
    """Tell whether Postgres refused what was to follow, rather than the end itself."""
    return type(error) is NotSent


def _is_called_here(app: Celery, errback: Any) -> bool:
    """Tell whether an error callback is called as a function (celery 5.7, backends/base.py: `_call_task_errbacks`)."""
    signature = app.signature(errback)
    if not signature._app:
        signature._app = app
    try:
        header = getattr(signature.type, "__header__", None)
    except NotRegistered:
        return False
    if header is None or isinstance(header, partial):
        return False
    return bool(app.backend._errback_arity_greater(signature, 1))

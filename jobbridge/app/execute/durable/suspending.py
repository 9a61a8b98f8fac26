"""Where the function of a task is called: what suspends its job is turned into a suspension here (`app.durable`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Reject, Retry

from jobbridge.app.execute import time_limits
from jobbridge.core.durable import UNDO_HEADER, Changed, Suspended

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def called(
    task: Any, request: Any, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Call the function of a task that runs.

    Raises:
        Ignore: The job is suspended; or what the function raises, as it is.
    """
    app: Celery = task.app
    try:
        with time_limits.enforced(task, request):
            if (request.headers or {}).get(UNDO_HEADER):
                app.durable.undo(task)
            value = call(*args, **kwargs)
    except (Suspended, Changed) as error:
        raise _made_of(app, task, error) from None
    except BaseExceptionGroup as errors:  # of a TaskGroup
        if (first := _first(errors)) is None:
            raise
        raise _made_of(app, task, first) from None
    except (Ignore, Reject, Retry):
        raise
    except Exception as error:
        undoing = app.durable.undoing(task, error)
        if undoing is None:
            raise
        raise app.durable.suspend(task, undoing) from error
    if (swallowed := app.durable.pending(request)) is not None:
        raise app.durable.suspend(task, swallowed)
    app.durable.tell_untaken(request)
    return value


def _made_of(app: Celery, task: Any, error: Suspended | Changed) -> Exception:
    """Give what Celery is told; a job whose handler changed fails at once, and is not undone: it may be repaired."""
    return error.error if isinstance(error, Changed) else app.durable.suspend(task, error)


def _first(errors: BaseExceptionGroup[BaseException]) -> Suspended | Changed | None:
    for error in errors.exceptions:
        if isinstance(error, Suspended | Changed):
            return error
        if isinstance(error, BaseExceptionGroup) and (found := _first(error)) is not None:
            return found
    return None

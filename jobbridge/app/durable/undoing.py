"""Sagas: what a job has done is undone when it fails for good, the last first, each once.

That it failed is recorded first, and its job sent again by a message that says so: from then on the handler does not
run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from jobbridge.app.durable.calls import Calls
from jobbridge.core.durable import Kind, NewStep, Suspended
from jobbridge.core.retry import RetryPolicy
from jobbridge.core.status import JobStatus
from jobbridge.errors import UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: An undo step that fails is tried again so often; then it is recorded as failed, and the ones before it are made.
POLICY = RetryPolicy(max_attempts=5, first=timedelta(seconds=1), maximum=timedelta(minutes=5))


def register(app: Celery, calls: Calls, undo: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Record what is to be done should the job fail.

    Raises:
        UnsupportedOption: It is neither a task nor a function that can be imported; or an argument is no JSON.
    """
    where = name_of(app, undo)
    recorded = calls.recorded
    name = where.rpartition(":")[2]
    call = recorded.named(Kind.UNDO, name, None)
    if recorded.take(call) is not None:
        return
    told = recorded.encoded({"undo": where, "args": list(args), "kwargs": kwargs}, f"ctx.on_failure({name})")
    recorded.put(
        NewStep(
            detail_id=uuid4(),
            kind=Kind.UNDO,
            call=call,
            name=name,
            status=JobStatus.COMPLETED,
            result=told,
        )
    )


def name_of(app: Celery, undo: Any) -> str:
    """Give the name of a task, or `module:name` of a function.

    Raises:
        UnsupportedOption: It is neither, or cannot be imported by that name.
    """
    if isinstance(undo, str) and undo in app.tasks:
        return undo
    if getattr(undo, "name", None) in app.tasks and hasattr(undo, "apply_async"):
        return str(undo.name)
    where = f"{getattr(undo, '__module__', None)}:{getattr(undo, '__qualname__', None)}"
    try:
        is_found = _imported(where) is undo
    except (ImportError, AttributeError, ValueError):
        is_found = False
    if not is_found:
        raise UnsupportedOption(
            f"ctx.on_failure was given {undo!r}, which another process could not find.",
            hint="Pass a task, its name, or a function at the top of a module.",
        )
    return where


def has_undo_steps(calls: Calls) -> bool:
    """Whether something is to be undone."""
    return bool(calls.recorded.of_kind(Kind.UNDO))


def failure(calls: Calls, error: BaseException) -> Suspended:
    """Give the suspension by which a job that failed for good goes on with its undo steps."""
    step = NewStep(
        detail_id=uuid4(),
        kind=Kind.FAILURE,
        call=Kind.FAILURE.value,
        name="failure",
        status=JobStatus.COMPLETED,
        result=calls.recorded.encoded_error(error),
        metadata={"error": calls.recorded.error_line(error)},
    )
    return Suspended("The job failed, and what it did is undone.", steps=[step], undoes=True)


def undo_all(app: Celery, calls: Calls) -> BaseException:
    """Make the undo steps that are left, the last first; gives what the job failed with.

    Raises:
        Suspended: One waits.
    """
    recorded = calls.recorded
    [failed] = recorded.of_kind(Kind.FAILURE)
    error = recorded.decoded_error(failed.result)
    recorded.is_concurrent = True  # what the handler recorded is not taken any more
    for undo in reversed(recorded.of_kind(Kind.UNDO)):
        told = recorded.decoded(undo.result)
        name = f"undo {undo.call.removeprefix(f'{Kind.UNDO}:')}"
        try:
            _undo(app, calls, name, told)
        except Exception as trouble:
            error.add_note(f"{name} failed: {type(trouble).__name__}: {trouble}")
    return error


def _undo(app: Celery, calls: Calls, name: str, told: dict[str, Any]) -> None:
    where, args, kwargs = told["undo"], told["args"], told["kwargs"]
    if ":" not in where or where in app.tasks:
        calls.call(where, args, kwargs)
        return
    calls.run(name, _imported(where), args, kwargs, retry=POLICY, key=None)


def _imported(where: str) -> Callable[..., Any]:
    module, _, name = where.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function

"""Jobs that a job calls: what is to be sent, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery import states
from celery.canvas import Signature, maybe_signature

from jobbridge.errors import CalledJobEnded, UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


@dataclass(kw_only=True, slots=True)
class Called:
    """One job of a `call` or a `gather`.

    Attributes:
        signature: Celery's.
        is_sent: It was, by an earlier start.
        is_known: It has ended, with `result` or `error`.
    """

    call: str
    signature: Any
    job_id: UUID
    detail_id: UUID
    is_sent: bool = False
    is_known: bool = False
    result: Any = None
    error: BaseException | None = None

    def value(self) -> Any:
        """Give its result, or raise what it failed with."""
        if self.error is not None:
            raise self.error
        return self.result


def signature_for(app: Celery, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Give the signature of one job.

    Args:
        app: Whose task.
        task: It, its name, or a signature of it.
        args: Of it, behind those of the signature.
        kwargs: Likewise.

    Raises:
        UnsupportedOption: It is more than one job.
    """
    if isinstance(task, Signature | dict):
        signature: Any = maybe_signature(task, app=app)
        signature = signature.clone(args=tuple(args), kwargs=dict(kwargs))
    else:
        name = task if isinstance(task, str) else task.name
        signature = app.signature(name, args=tuple(args), kwargs=dict(kwargs))
    if signature.subtask_type is not None:
        raise UnsupportedOption(
            f"A {signature.subtask_type} cannot be called as one job.",
            hint="Call its tasks: ctx.gather(*signatures) for a group, one ctx.call after the other for a chain.",
        )
    return signature


def outcome_of(app: Celery, calls: Sequence[Called]) -> dict[UUID, tuple[Any, BaseException | None]] | None:
    """Give result and error of each; None: one has not ended."""
    stored = {row.job_id: row for row in app.jobs.results_of([each.job_id for each in calls])}
    if any(not row.status.is_final for row in stored.values()):
        return None
    return {each.job_id: _told(app, each, stored.get(each.job_id)) for each in calls}


def _told(app: Celery, called: Called, row: Any) -> tuple[Any, BaseException | None]:
    name = called.signature.task
    if row is None:
        return None, CalledJobEnded(f"The called job {called.job_id} ({name}) is gone.")
    meta_of = getattr(app.backend, "meta_of", None)  # another backend has results elsewhere
    meta = app.backend.get_task_meta(row.task_id) if meta_of is None else meta_of(row)
    match meta["status"]:
        case states.SUCCESS:
            return meta["result"], None
        case states.FAILURE if isinstance(meta["result"], BaseException):
            return None, meta["result"]
    return None, CalledJobEnded(f"The called job {called.job_id} ({name}) is {row.status.value}.")

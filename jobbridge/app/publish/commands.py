"""What callers ask of the app beyond Celery's own calls: enqueue by name, and cancel."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kombu.exceptions import OperationalError

from jobbridge.app.errors import sending
from jobbridge.broker import delete_waiting
from jobbridge.core.enqueue import Outcome, SingletonPolicy
from jobbridge.core.events import Cancelled
from jobbridge.core.handlers import handler_of, nearest
from jobbridge.core.keys import Engine, JobKey, TenantId, job_id_for
from jobbridge.errors import EngineUnavailable, InvalidJobData, JobNotFound, UnknownHandler
from jobbridge.store.batches.progress import BATCH

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import Sent
    from jobbridge.app.types import Result
    from jobbridge.store.jobs.queries import JobRow

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobHandle:
    """A job that was asked for; after `deduplicated`, the one that there was before."""

    job_id: UUID
    external_id: str
    result: Result[Any]
    outcome: Outcome = Outcome.CREATED


@sending()
def enqueue(
    app: Celery,
    name: str,
    data: Any = None,
    *,
    tenant: str | None = None,
    engine: Engine | str | None = None,
    queue: str | None = None,
    run_at: datetime | None = None,
    priority: int | None = None,
    user_id: UUID | str | None = None,
    metadata: dict[str, Any] | None = None,
    expires: datetime | timedelta | None = None,
    singleton_key: str | None = None,
    singleton_policy: SingletonPolicy | str | None = None,
    concurrency: Any = None,
    rate_limit: Any = None,
    unique: Any = None,
    throttle: Any = None,
    debounce: Any = None,
    default_engine: Engine | None = None,
    add_to_parent: bool = True,
) -> JobHandle:
    """Send a job by its handler's name.

    Args:
        data: For a handler its data; for any other task `{"args": [...], "kwargs": {...}}`, or its keyword arguments.
        tenant: Whose job; else the one in the data, else the one of the job that sends it.
        engine: This one, whatever the task and the settings say.
        queue: Else the task's, or as routed.
        run_at: Not before then.
        priority: 0 to 9, higher first.
        user_id: Who asked for it.
        metadata: Kept in the row.
        expires: It does not start after that instant, or so long after now.
        singleton_key: At most one job of the tenant that has not ended has this key.
        singleton_policy: `skip` (default), `replace` or `raise`, when another job has the key.
        concurrency, rate_limit, unique, throttle, debounce: Its rules across the fleet, instead of the task's own
            (docs/rules.md).
        default_engine: This one, unless the task says otherwise.
        add_to_parent: A task that sends it remembers it as its child (`AsyncResult.children`).

    Raises:
        DuplicateJob: Another job has the singleton key, and the policy is `raise`.
        UnsupportedOption: An option cannot be honoured.
        UnknownHandler: No task has that name here; suggests the nearest.
        InvalidJobData: The data does not fit.
        TenantRequired: The handler needs a tenant.
    """
    task = find_task(app, name)
    args, kwargs = arguments_for(task, data)
    lifetime = expires.total_seconds() if isinstance(expires, timedelta) else expires
    options = {
        "queue": queue,
        "eta": run_at,
        "priority": priority,
        "expires": lifetime,
        "singleton_key": singleton_key,
        "singleton_policy": singleton_policy,
        "concurrency": concurrency,
        "rate_limit": rate_limit,
        "unique": unique,
        "throttle": throttle,
        "debounce": debounce,
        "default_engine": default_engine,
    }
    result = task.apply_async(
        args=args,
        kwargs=kwargs,
        tenant=tenant,
        engine=engine,
        user_id=user_id,
        job_metadata=metadata,
        add_to_parent=add_to_parent,
        **{key: value for key, value in options.items() if value is not None},
    )
    sent: Sent | None = getattr(result, "job", None)
    return JobHandle(
        job_id=job_id_for(result.id),
        external_id=sent.external_id if sent else result.id,
        result=result,
        outcome=sent.outcome if sent else Outcome.CREATED,
    )


def find_task(app: Celery, name: str) -> Any:
    """Give the task of that name, importing the app's task modules if it is not known yet.

    Raises:
        UnknownHandler: No task has that name here; suggests the nearest.
    """
    if name not in app.tasks:
        app.loader.import_default_modules()
    task = app.tasks.get(name)
    if task is None:
        known = [task_name for task_name in app.tasks if not task_name.startswith("celery.")]
        raise UnknownHandler.named(name, suggestion=nearest(name, known))
    return task


def arguments_for(task: Any, data: Any) -> tuple[list[Any], dict[str, Any]]:
    """Give args and kwargs for a task from a job's data, as the workflow's input has it too.

    Raises:
        InvalidJobData: `args` is no list, or `kwargs` no object.
    """
    if handler_of(task) is not None:
        return [data if data is not None else {}], {}
    if isinstance(data, dict) and data and set(data) <= {"args", "kwargs"}:
        args, kwargs = data.get("args") or [], data.get("kwargs") or {}
        name = str(getattr(task, "name", "the task"))
        if not isinstance(args, list | tuple):
            raise InvalidJobData.of(name, f"args is {args!r:.60}, which is no list")
        if not isinstance(kwargs, dict) or not all(isinstance(each, str) for each in kwargs):
            raise InvalidJobData.of(name, f"kwargs is {kwargs!r:.60}, which is no object")
        return list(args), dict(kwargs)
    if isinstance(data, dict):
        return [], data
    return ([] if data is None else list(data) if isinstance(data, list) else [data]), {}


def find_job(app: Celery, job_id: UUID | str, tenant: str | None) -> JobRow:
    """Give the row of a job; of that tenant, if one is named, whoever else has a job of that id.

    Raises:
        JobNotFound: There is no such job (of that tenant).
    """
    known = job_id_for(str(job_id))
    row = (
        app.jobs.find(known)
        if tenant is None
        else app.jobs.get(JobKey(tenant=TenantId(tenant), job_id=known))
    )
    if row is None:
        raise JobNotFound.with_id(str(job_id))
    return row


@sending()
def cancel_job(
    app: Celery,
    job_id: UUID | str,
    tenant: str | None = None,
    *,
    reason: str | None = None,
    cancelled_by: str | None = None,
) -> bool:
    """Cancel a job, waiting or running.

    The row comes first: from then on the job cannot complete, whatever the engine still does.

    Returns:
        False when it had ended before.

    Raises:
        JobNotFound: There is no such job (of that tenant).
    """
    row = find_job(app, job_id, tenant)
    recorded = app.recorder.record(Cancelled(key=row.key, reason=reason, cancelled_by=cancelled_by))
    if not recorded.applied:
        return False
    _stop(app, row, reason, cancelled_by)
    app.fan_outs.cancel(row.key, cancelled_by=cancelled_by)
    app.durable.cancel_called(row.key, cancelled_by=cancelled_by)
    if (batch_id := row.metadata.get(BATCH)) is not None:
        app.batches.attend_safely(UUID(batch_id))
    return True


def _stop(app: Celery, row: JobRow, reason: str | None, cancelled_by: str | None) -> None:
    """Reach what runs or waits. What cannot be reached is refused by the row when it starts."""
    task_id = row.task_id
    try:
        if row.runner_type is Engine.TEMPORAL:
            app.delivery(Engine.TEMPORAL).cancel(task_id, reason=reason, cancelled_by=cancelled_by)
            return
        if app.shares_database_with_broker:
            with app.database.transaction() as connection:
                if delete_waiting(connection, task_id):
                    return
        app.control.revoke(task_id, terminate=True)
    except (EngineUnavailable, OperationalError) as error:
        logger.warning("job.cancel_not_delivered", extra={"job_id": task_id, "error": str(error)})

"""The parents that callers make: jobs of a task of ours, which every app has."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery.exceptions import Ignore

from jobbridge.app.errors import sending
from jobbridge.app.fanout.children import make
from jobbridge.app.options import engine_named
from jobbridge.app.publish.commands import JobHandle, find_job
from jobbridge.app.publish.message.ids import new_task_id
from jobbridge.core.enqueue import Outcome, SingletonPolicy
from jobbridge.core.fanout import FAN_OUT_HEADER, FAN_OUT_TASK, FanOut
from jobbridge.core.keys import SYSTEM_TENANT, Engine
from jobbridge.errors import DatabaseUnavailable, JobCancelled

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def add_fan_out_task(app: Celery) -> None:
    """Make the task whose jobs only have children."""
    app._task_from_fun(
        _look_after_children,
        name=FAN_OUT_TASK,
        bind=True,
        typing=False,
        autoretry_for=(DatabaseUnavailable,),
        max_retries=10,
        retry_backoff=True,
        retry_backoff_max=30,
    )


def _look_after_children(task: Any, fan_out: Any = None) -> Any:
    try:
        return task.app.fan_outs.resume(task)
    except JobCancelled as error:
        raise Ignore(str(error)) from None  # the row says `cancelled` already


@sending()
def fan_out(
    app: Celery,
    wanted: FanOut,
    *,
    tenant: str | None = None,
    engine: Engine | str | None = None,
    default_engine: Engine | None = None,
    run_at: datetime | None = None,
    expires: datetime | timedelta | None = None,
    user_id: UUID | str | None = None,
    metadata: dict[str, Any] | None = None,
    singleton_key: str | None = None,
    singleton_policy: SingletonPolicy | str | None = None,
) -> JobHandle:
    """Send a job that has one child for each item, all in one transaction: `app.enqueue_on(…)`'s, or one of its own.

    Args:
        wanted: Handler, items, concurrency.
        tenant: Whose parent; else the system's. Its children are of the same, unless they say otherwise.
        engine: Of the parent.
        default_engine: Of the parent, unless the settings of the task say otherwise.
        run_at: Nothing starts before then.
        expires: Nothing starts after that instant, or so long after now, unless it began before.
        user_id: Who asked for it.
        metadata: Kept in the parent's row.
        singleton_key: At most one job of the tenant that has not ended has this key.
        singleton_policy: `skip` (default), `replace` or `raise`, when another job has the key.

    Raises:
        DuplicateJob: Another job has the singleton key, and the policy is `raise`.
        UnsupportedOption: An option, the items, or where the children would go cannot be honoured.
        HandlerError: There is no such handler, or a child's data does not fit it.
        TenantRequired: The handler needs a tenant, and a child has none.
    """
    lifetime = expires.total_seconds() if isinstance(expires, timedelta) else expires
    options = {
        "engine": engine,
        "default_engine": default_engine,
        "eta": run_at,
        "expires": lifetime,
        "user_id": user_id,
        "singleton_key": singleton_key,
        "singleton_policy": singleton_policy,
    }
    task_id = new_task_id()
    with app.database.transaction(app.caller_connection) as connection, app.enqueue_on(connection):
        result = app.tasks[FAN_OUT_TASK].apply_async(
            args=[{"handler": wanted.task, "concurrency": wanted.concurrency}],
            task_id=task_id,
            tenant=tenant or SYSTEM_TENANT,
            job_metadata=metadata,
            headers={FAN_OUT_HEADER: True},
            **{name: value for name, value in options.items() if value is not None},
        )
        sent = result.job
        if sent.outcome is not Outcome.DEDUPLICATED:
            make(
                app,
                connection,
                sent.key,
                wanted,
                root_id=task_id,
                parent_id=task_id,
                default_engine=engine_named(engine or default_engine or app.default_engine),
            )
    return JobHandle(
        job_id=sent.key.job_id, external_id=sent.external_id, result=result, outcome=sent.outcome
    )


@sending()
def retry_failed(app: Celery, job_id: UUID | str, tenant: str | None = None) -> int:
    """Run the children of a failed parent again that did not complete; gives their number.

    Raises:
        JobNotFound: There is no such job (of that tenant).
        CannotRetry: It has no children, or did not fail.
    """
    return app.fan_outs.retry_failed(find_job(app, job_id, tenant).key)

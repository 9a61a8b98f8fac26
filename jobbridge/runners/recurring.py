"""Recurring jobs of the runner API: schedules, made and deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.app.options import policy_named
from jobbridge.app.schedules.commands import ScheduleHandle
from jobbridge.core.enqueue import Outcome, SingletonPolicy
from jobbridge.core.keys import Engine
from jobbridge.core.schedules.policies import DEFAULT_CATCHUP, Overlap
from jobbridge.errors import DuplicateJob, ScheduleNotFound, UnsupportedOption
from jobbridge.runners.types import ScheduledJob, ScheduleOptions
from jobbridge.store.schedules.repository import SaveOutcome

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

_OUTCOMES = {
    SaveOutcome.CREATED: Outcome.CREATED,
    SaveOutcome.UPDATED: Outcome.REPLACED,
    SaveOutcome.UNCHANGED: Outcome.DEDUPLICATED,
}


def schedule_recurring(
    app: Celery,
    name: str,
    data: Any,
    when: str | timedelta,
    options: ScheduleOptions,
    *,
    engine: Engine,
) -> ScheduledJob:
    """Make the schedule of that handler, tenant and singleton key, or change it: see JobRunner."""
    _refuse(options)
    with_key = name if options.singleton_key is None else f"{name}:{options.singleton_key}"
    tenant = options.tenant or app.schedules.tenant_of(name, data)
    policy = None if options.singleton_policy is None else policy_named(options.singleton_policy)
    if policy in (SingletonPolicy.SKIP, SingletonPolicy.RAISE):
        existing = _existing(app, with_key, tenant)
        if existing is not None and policy is SingletonPolicy.RAISE:
            raise DuplicateJob.of(options.singleton_key or "", job_id=str(existing), status="recurring")
        if existing is not None:
            return _scheduled(existing, Outcome.DEDUPLICATED)
    handle: ScheduleHandle = app.schedules.create(
        name,
        when,
        data,
        name=with_key,
        tenant=options.tenant,
        zone=options.timezone,
        overlap=options.overlap or Overlap.SKIP,
        catchup=DEFAULT_CATCHUP if options.catchup is None else options.catchup,
        jitter=options.jitter or timedelta(0),
        engine=options.engine,
        default_engine=engine,
        queue=options.queue,
        priority=options.priority,
        user_id=options.user_id,
        metadata=options.metadata,
        expires=options.expires if isinstance(options.expires, timedelta) else None,
    )
    return _scheduled(handle.schedule_id, _OUTCOMES[handle.outcome], handle.warning)


def cancel_recurring(app: Celery, schedule_id: UUID | str, tenant: str | None) -> bool:
    """Delete the schedule of that id; False: there is none (of that tenant)."""
    try:
        UUID(str(schedule_id))
        app.schedules.delete(schedule_id, tenant)
    except (ValueError, ScheduleNotFound):
        return False
    return True


def _existing(app: Celery, name: str, tenant: str) -> UUID | None:
    try:
        return app.schedules.find(name, tenant).schedule_id
    except ScheduleNotFound:
        return None


def _refuse(options: ScheduleOptions) -> None:
    if options.run_at is not None:
        raise UnsupportedOption(
            f"run_at is {options.run_at}, and a recurring job has its own times.", hint="Leave run_at out."
        )
    if options.expires is not None and not isinstance(options.expires, timedelta):
        raise UnsupportedOption(
            f"expires is {options.expires}, which would pass once for all.", hint="Pass a timedelta."
        )


def _scheduled(schedule_id: UUID, outcome: Outcome, warning: str | None = None) -> ScheduledJob:
    return ScheduledJob(job_id=schedule_id, external_id=str(schedule_id), outcome=outcome, warning=warning)

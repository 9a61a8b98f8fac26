"""The books of a fire: its row and its job's, before the job runs.

A workflow that a schedule of Temporal started comes here first. In one transaction, with the schedule's row locked:
the fire's row, the job's row with its message (sent through the app's publish point, as Celery's beat sends it), and
the schedule's next instant. Who writes the fire's row makes its job; so a fire that a beat made too, while the
schedule moved from one engine to the other, is not made twice.

What if the worker dies between two steps? Before the transaction: another worker begins again. After it: the fire has
its job, and that goes on by its message.

What if the tables cannot be used? That does not stop the run: the job goes on with what Temporal was told.

What if the schedule went to the other engine between Temporal's fire and its workflow's beginning? That engine fires
from the row's next instant on. A fire before it, which a later one overtook, is nobody's else: its job is made here,
for the engine that the row names now.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from kombu.exceptions import OperationalError

from jobbridge.app.schedules.commands import queue_of
from jobbridge.app.schedules.firing import apply, cancel_jobs, fire_options, send_fire
from jobbridge.core.enqueue import Outcome
from jobbridge.core.events import Accepted
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.schedules.fires import fires_between, is_fire, next_fire
from jobbridge.core.schedules.mirroring import clock_changes
from jobbridge.core.schedules.policies import FireOutcome, Overlap, Trigger
from jobbridge.core.schedules.specs import ScheduleSpec, SpecKind, read_spec, zone_named
from jobbridge.errors import DatabaseError, JobBridgeError
from jobbridge.store.schedules import fires
from jobbridge.store.schedules.mirrors import is_unsettled, job_of_fire, settle_unfired
from jobbridge.store.schedules.repository import database_clock
from jobbridge.store.schedules.rows import ScheduleRow
from jobbridge.temporal.wire.fire import Fire

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from jobbridge.app.application import Celery
    from jobbridge.postgres.caller_connection import DriverConnection

logger = logging.getLogger(__name__)

#: Around a change of the clock Temporal's calendars fire where the wall clock shows a time twice (decision 0006).
_AROUND_CHANGE = timedelta(hours=3)
#: Instants without a run that one fire notes; the rest are in the log of Temporal alone.
_UNFIRED_LIMIT = 1000
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What there is to run.

    Attributes:
        message: The job's message; None: to be made of the workflow's input.
        skipped: It is not to run, for this reason.
        waits: It is not to run yet, for this reason; nothing was written.
    """

    message: dict[str, Any] | None = None
    skipped: str | None = None
    waits: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The workflow that carries a fire."""

    fire: Fire
    workflow_id: str
    run_id: str

    @property
    def tenant(self) -> TenantId:
        return TenantId(self.fire.tenant_id)

    @property
    def schedule_id(self) -> UUID:
        return UUID(self.fire.schedule_id)

    @property
    def key(self) -> JobKey:
        return JobKey(tenant=self.tenant, job_id=UUID(self.fire.job_id))


def begin_fire(app: Celery, fire: Fire, *, workflow_id: str, run_id: str) -> Begun:
    """Write the books of a fire; doing it twice does it once.

    Raises:
        JobBridgeError: Its job cannot be made (its data is not valid); the fire's row says so.
    """
    run = _Run(fire=fire, workflow_id=workflow_id, run_id=run_id)
    try:
        with app.database.transaction() as connection:
            return _begin(app, connection, run)
    except (DatabaseError, psycopg.Error, OperationalError) as error:
        logger.warning("schedule.fire_not_recorded", extra={"job_id": fire.job_id, "error": str(error)})
        return Begun(skipped=_reason_without_books(fire))
    except JobBridgeError as error:
        _note_failed(app, run, str(error))
        raise


def triggered_by(
    spec: ScheduleSpec, zone: ZoneInfo, instant: datetime, told: Fire, *, version: int
) -> Trigger | str:
    """Tell who asked for a fire, or why it is none.

    Args:
        spec: What the schedule says now.
        zone: The zone whose wall clock it means.
        instant: Nominal.
        told: What Temporal was told when it fired.
        version: Of the row, now.
    """
    if is_fire(spec, zone, instant):
        return Trigger.SCHEDULE
    if told.version != version and _is_fire_as_told(told):
        return "the schedule has changed since"
    near = clock_changes(zone, instant - _AROUND_CHANGE, instant + _AROUND_CHANGE)
    if instant.second == 0 and any(near):
        return "the clock was changed, and the schedule does not fire then"
    return Trigger.MANUAL  # `temporal schedule trigger`, or its web UI


def _is_fire_as_told(told: Fire) -> bool:
    return is_fire(read_spec(SpecKind(told.kind), told.spec), zone_named(told.zone), told.instant)


def _reason_without_books(told: Fire) -> str | None:
    spec, zone = read_spec(SpecKind(told.kind), told.spec), zone_named(told.zone)
    trigger = triggered_by(spec, zone, told.instant, told, version=told.version)
    return None if isinstance(trigger, Trigger) else trigger


def _begin(app: Celery, connection: DriverConnection, run: _Run) -> Begun:
    fire_at = run.fire.instant
    row = fires.lock_one(connection, run.tenant, run.schedule_id)
    if job_of_fire(connection, run.tenant, run.schedule_id, fire_at) is not None:
        return _go_on(app, connection, run)
    if row is None:
        return Begun(skipped="the schedule was deleted")
    if row.engine is not Engine.TEMPORAL:
        return _hand_over(app, connection, run, row)
    trigger = triggered_by(row.parsed, zone_named(row.zone), fire_at, run.fire, version=row.version)
    if not isinstance(trigger, Trigger):
        return Begun(skipped=trigger)
    if trigger is Trigger.SCHEDULE and row.paused:
        _settle_passed(connection, row, fire_at)
        return _skip(
            connection, run, row, "the schedule is paused", fires.still_open(connection, row, row.open_jobs)
        )
    return _make_job(app, connection, run, row, trigger)


def _go_on(app: Celery, connection: DriverConnection, run: _Run) -> Begun:
    """Another attempt of this very run, or a fire that somebody else made."""
    job = app.jobs.get(run.key, connection)
    if job is None or job.external_id != run.workflow_id:
        return Begun(skipped="another scheduler fired it")
    stored = app.jobs.delivery_of(run.key, connection)
    return Begun(message=None if stored is None else stored.message)


def _hand_over(app: Celery, connection: DriverConnection, run: _Run, row: ScheduleRow) -> Begun:
    """Make the job of a fire which Temporal began, and the schedule's engine of now does not: it is past it."""
    fire_at, job_id, by = run.fire.instant, run.key.job_id, f"the schedule is fired by {row.engine.value} now"
    trigger = triggered_by(row.parsed, zone_named(row.zone), fire_at, run.fire, version=row.version)
    is_ahead = row.next_fire_at is not None and row.next_fire_at <= fire_at
    if (
        trigger is not Trigger.SCHEDULE
        or is_ahead
        or row.paused
        or not is_unsettled(connection, row, fire_at)
    ):
        return Begun(skipped=by)
    still_open = fires.still_open(connection, row, row.open_jobs)
    overlaps = bool(still_open) and row.overlap is not Overlap.ALLOW
    outcome = FireOutcome.SKIPPED if overlaps else FireOutcome.ENQUEUED
    reason = "an earlier job has not ended" if overlaps else None
    fires.note_fire(
        connection,
        row,
        fire_at,
        outcome,
        reason=reason,
        job_id=None if overlaps else job_id,
        is_temporal=True,
    )
    if not overlaps and send_fire(app, connection, row, fire_at, job_id) is Outcome.DEDUPLICATED:
        reason = "another job has its singleton key"
        fires.settle_fire(connection, row, fire_at, FireOutcome.SKIPPED, reason=reason)
    elif not overlaps and row.overlap is not Overlap.ALLOW:
        fires.advance(
            connection,
            row,
            next_fire_at=row.next_fire_at,
            due_at=row.due_at,
            buffered_fire_at=row.buffered_fire_at,
            open_jobs=[*still_open, job_id],
        )
    return Begun(skipped=by if reason is None else f"{by}, and {reason}")


def _make_job(
    app: Celery, connection: DriverConnection, run: _Run, row: ScheduleRow, trigger: Trigger
) -> Begun:
    fire_at, job_id = run.fire.instant, run.key.job_id
    still_open = fires.still_open(connection, row, row.open_jobs)
    if trigger is Trigger.SCHEDULE:
        _settle_passed(connection, row, fire_at)
        if still_open and row.overlap is Overlap.SKIP:
            # Temporal skips what overlaps with its own runs; this one was made by another engine, or by hand.
            return _skip(connection, run, row, "an earlier job has not ended", still_open)
        if still_open and row.overlap is Overlap.CANCEL_OTHER:
            cancel_jobs(app, row, still_open, fire_at)
            still_open = fires.still_open(connection, row, still_open)
        if still_open and row.overlap in {Overlap.BUFFER_ONE, Overlap.CANCEL_OTHER}:
            return Begun(waits="an earlier job has not ended")
    if not fires.note_fire(
        connection, row, fire_at, FireOutcome.ENQUEUED, trigger=trigger, job_id=job_id, is_temporal=True
    ):
        return Begun(skipped="another scheduler fired it")
    sent = _send(app, connection, run, row)
    if sent is not Outcome.CREATED and sent is not Outcome.REPLACED:
        return _skip(connection, run, row, "another job has its singleton key", still_open)
    stored = app.jobs.delivery_of(run.key, connection)
    assert stored is not None
    assert stored.delivery is not None  # it was just sent
    accepted = Accepted(
        key=run.key,
        delivery=stored.delivery,
        engine=Engine.TEMPORAL,
        external_id=run.workflow_id,
        external_run_id=run.run_id,
    )
    app.recorder.record(accepted, connection)
    now_open = still_open if row.overlap is Overlap.ALLOW else [*still_open, job_id]
    _advance(connection, row, fire_at, trigger, job_id, now_open)
    return Begun(message=stored.message)


def _send(app: Celery, connection: DriverConnection, run: _Run, row: ScheduleRow) -> Outcome:
    options = fire_options(row, run.fire.instant, run.key.job_id)
    options |= {"queue": queue_of(app, row.task, row.queue), "may_fall_back": False}
    options["temporal_light"] = False  # a workflow has begun it, and its retries go on there
    with app.enqueue_on(connection):
        result = apply(app, row, options)
    outcome: Outcome = result.job.outcome
    return outcome


def _skip(
    connection: DriverConnection, run: _Run, row: ScheduleRow, reason: str, still_open: list[UUID]
) -> Begun:
    fire_at = run.fire.instant
    skipped = FireOutcome.SKIPPED
    if not fires.note_fire(connection, row, fire_at, skipped, reason=reason, is_temporal=True):
        fires.settle_fire(connection, row, fire_at, skipped, reason=reason)
    _advance(connection, row, fire_at, Trigger.SCHEDULE, None, still_open)
    return Begun(skipped=reason)


def _settle_passed(connection: DriverConnection, row: ScheduleRow, until: datetime) -> None:
    """Note the instants before this one of which nobody has said anything."""
    if row.next_fire_at is not None and row.next_fire_at < until:
        passed = fires_between(row.parsed, zone_named(row.zone), row.next_fire_at, until - _INSTANT)
        settle_unfired(connection, row, list(islice(passed, _UNFIRED_LIMIT)))


def _advance(
    connection: DriverConnection,
    row: ScheduleRow,
    fire_at: datetime,
    trigger: Trigger,
    job_id: UUID | None,
    open_jobs: list[UUID],
) -> None:
    following = row.next_fire_at
    if trigger is Trigger.SCHEDULE and (following is None or following <= fire_at):
        following = next_fire(row.parsed, zone_named(row.zone), fire_at)
    is_overtaken = row.last_fire_at is not None and row.last_fire_at > fire_at
    is_last = job_id is not None and not is_overtaken
    fires.advance(
        connection,
        row,
        next_fire_at=following,
        last_fire_at=fire_at if is_last else None,
        last_job_id=job_id if is_last else None,
        open_jobs=open_jobs,
    )


def _note_failed(app: Celery, run: _Run, reason: str) -> None:
    try:
        with app.database.transaction() as connection:
            row = fires.lock_one(connection, run.tenant, run.schedule_id)
            if row is not None:
                failed = FireOutcome.FAILED
                fires.note_fire(connection, row, run.fire.instant, failed, reason=reason, is_temporal=True)
    except (DatabaseError, psycopg.Error) as error:
        logger.warning("schedule.fire_not_recorded", extra={"job_id": run.fire.job_id, "error": str(error)})


def settle_overdue(app: Celery, tenant: TenantId, schedule_id: UUID, *, grace: timedelta) -> None:
    """Note the instants of which Temporal told nothing for so long."""
    with app.database.transaction() as connection:
        row = fires.lock_one(connection, tenant, schedule_id)
        if row is None or row.paused or row.engine is not Engine.TEMPORAL or row.next_fire_at is None:
            return
        until = database_clock(connection) - grace
        _settle_passed(connection, row, until)
        following = next_fire(row.parsed, zone_named(row.zone), until - _INSTANT)
        open_jobs = fires.still_open(connection, row, row.open_jobs)
        fires.advance(connection, row, next_fire_at=following, open_jobs=open_jobs)

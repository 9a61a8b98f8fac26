"""From a schedule that is due to its jobs: what beat does, and "run now", and backfill.

See `jobbridge.store.schedules.fires` for what is written in one transaction, and why two schedulers make one job.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from kombu.exceptions import OperationalError

from jobbridge.app.schedules.declared import restored
from jobbridge.codec.schedules import open_schedule
from jobbridge.core.enqueue import Outcome
from jobbridge.core.events import Json
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.schedules.fires import fires_between
from jobbridge.core.schedules.planning import plan
from jobbridge.core.schedules.policies import (
    FireOutcome,
    Overlap,
    OverlapDecision,
    Trigger,
    decide_after_cancel,
    decide_overlap,
    fire_job_id,
)
from jobbridge.core.schedules.specs import zone_named
from jobbridge.errors import (
    DatabaseUnavailable,
    EncryptionError,
    JobNotFound,
    ScheduleNotFound,
    UnsupportedOption,
)
from jobbridge.store.schedules import fires
from jobbridge.store.schedules.repository import Clock, database_clock
from jobbridge.store.schedules.rows import ScheduleRow

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import Sent
    from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.faults import Kind, kind_of

logger = logging.getLogger(__name__)

#: Schedules that are fired in one transaction.
BATCH = 50
#: How soon to ask again whether the job has ended that a fire waits for.
BUFFER_POLL = timedelta(seconds=1)
#: How soon to look again at a schedule that cannot be read.
UNREADABLE_POLL = timedelta(minutes=5)
#: More fires are not made at once by a backfill.
BACKFILL_LIMIT = 1000


class ScheduleFirer:
    """Fires schedules that are due. Any number of them may run, in any number of processes.

    Args:
        app: Whose schedules.
        clock: What time it is; tests pass their own.
    """

    def __init__(self, app: Celery, *, clock: Clock = database_clock) -> None:
        self._app = app
        self._clock = clock

    def fire_due(self, *, limit: int = BATCH) -> int:
        """Fire what is due and no other scheduler holds, in one transaction; gives the number of schedules.

        Raises:
            DatabaseUnavailable: Postgres cannot be reached; what was not committed is due still.
        """
        with self._app.database.transaction() as connection:
            now = self._clock(connection)
            rows = fires.claim(connection, now, limit=limit)
            for row in rows:
                self._fire_row(connection, row, now)
        return len(rows)

    def time_to_next(self) -> timedelta | None:
        """Give how long it is until the next schedule is due, less than nothing if one is; None: none ever."""
        with self._app.database.connection() as connection:
            due_at = fires.next_due(connection)
            return None if due_at is None else due_at - self._clock(connection)

    def fire_now(self, tenant: TenantId, schedule_id: UUID) -> UUID:
        """Make a job now, whatever its times, its overlap policy, and whether it is paused; gives the job's id.

        Raises:
            ScheduleNotFound: There is no such schedule.
            UnsupportedOption: Its job cannot be made; its history says so, too.
        """
        with self._app.database.transaction() as connection:
            row = self._locked(connection, tenant, schedule_id)
            fire_at = self._clock(connection)
            progress = _Progress(self._app, connection, row)
            progress.enqueue(fire_at, Trigger.MANUAL)
            progress.save(next_fire_at=row.next_fire_at, due_at=row.due_at)
        if progress.trouble is not None:
            raise UnsupportedOption(
                f"The schedule {row.name!r} could not make a job: {progress.trouble}",
                hint="Change the schedule, or the task that it names.",
            )
        return fire_job_id(tenant, schedule_id, fire_at)

    def backfill(self, tenant: TenantId, schedule_id: UUID, start: datetime, end: datetime) -> list[datetime]:
        """Make the jobs of all fires from `start` to `end` that have none; gives the instants of those that were made.

        They do not ask for the overlap policy, and run in the order in which their queue gives them out.

        Raises:
            ScheduleNotFound: There is no such schedule.
            UnsupportedOption: These are too many, or the end is before the start.
        """
        with self._app.database.transaction() as connection:
            row = self._locked(connection, tenant, schedule_id)
            instants = _between(row, start, end)
            progress = _Progress(self._app, connection, row)
            made = [instant for instant in instants if progress.enqueue(instant, Trigger.BACKFILL)]
            progress.save(next_fire_at=row.next_fire_at, due_at=row.due_at)
        return made

    def _locked(self, connection: DriverConnection, tenant: TenantId, schedule_id: UUID) -> ScheduleRow:
        row = fires.lock_one(connection, tenant, schedule_id)
        if row is None:
            raise ScheduleNotFound.named(str(schedule_id))
        return row

    def _fire_row(self, connection: DriverConnection, row: ScheduleRow, now: datetime) -> None:
        try:
            planned = plan(row.state, now)
            open_schedule(self._app.database.codec, row)  # what has no key here waits for it
        except (UnsupportedOption, EncryptionError) as error:
            logger.error("schedule.unreadable", extra={"schedule": row.name, "error": str(error)})
            fires.postpone(connection, row, now + UNREADABLE_POLL)
            return
        progress = _Progress(self._app, connection, row)
        progress.settle_buffered(is_overtaken=bool(planned.due))
        if planned.missed is not None:
            progress.note_missed(planned.missed.first, planned.missed.until)
        is_more_due = planned.due_at is not None and planned.due_at <= now
        for fire_at in planned.due:
            progress.fire(fire_at, is_overtaken=is_more_due or fire_at != planned.due[-1])
        progress.save(next_fire_at=planned.next_fire_at, due_at=progress.look_again_at(planned.due_at, now))


class _Progress:
    """One locked schedule while its fires are dealt with."""

    def __init__(self, app: Celery, connection: DriverConnection, row: ScheduleRow) -> None:
        self._app = app
        self._connection = connection
        self._row = row
        self._buffered = row.buffered_fire_at
        self._last_fire_at: datetime | None = None
        self._last_job_id: UUID | None = None
        self.trouble: str | None = None  # why the last job could not be made
        self._open = fires.still_open(connection, row, row.open_jobs)

    def settle_buffered(self, *, is_overtaken: bool) -> None:
        """Make the job of the fire that waits, if the earlier job has ended.

        Args:
            is_overtaken: Another fire is due, which would cancel that job if the policy is to cancel.
        """
        if self._buffered is None:
            return
        if is_overtaken and self._row.overlap is Overlap.CANCEL_OTHER:
            self._drop_buffered()
            return
        if self._open:
            return
        fire_at, self._buffered = self._buffered, None
        outcome, job_id, reason = self._send(fire_at)
        fires.settle_fire(self._connection, self._row, fire_at, outcome, job_id=job_id, reason=reason)

    def note_missed(self, first: datetime, until: datetime) -> None:
        fires.note_fire(
            self._connection,
            self._row,
            first,
            FireOutcome.MISSED,
            reason="no scheduler ran, and the catch-up window is over",
            missed_until=until,
        )
        logger.warning(
            "schedule.missed",
            extra={"schedule": self._row.name, "first": first.isoformat(), "until": until.isoformat()},
        )

    def fire(self, fire_at: datetime, *, is_overtaken: bool) -> None:
        """Do what the overlap policy says.

        Args:
            fire_at: Nominal.
            is_overtaken: A later fire is due, too.
        """
        self._last_fire_at = fire_at
        decision = decide_overlap(
            self._row.overlap,
            is_running=bool(self._open),
            has_buffered=self._buffered is not None,
            is_overtaken=is_overtaken,
        )
        if decision.cancels:
            # Before the new job is made. Whoever is not reached stays among the open ones.
            cancel_jobs(self._app, self._row, self._open, fire_at)
            self._open = fires.still_open(self._connection, self._row, self._open)
            decision = decide_after_cancel(is_stopping=bool(self._open))
        if decision.outcome is FireOutcome.ENQUEUED:
            self.enqueue(fire_at, Trigger.SCHEDULE)
        else:
            self._leave(fire_at, decision)

    def enqueue(self, fire_at: datetime, trigger: Trigger) -> bool:
        """Make the job of a fire; False: there is one already, or it could not be made."""
        job_id = fire_job_id(self._row.tenant, self._row.schedule_id, fire_at)
        # The history may be pruned before the job is.
        if trigger is Trigger.BACKFILL and _is_job(self._app, self._connection, self._row.tenant, job_id):
            return False
        if not fires.note_fire(
            self._connection, self._row, fire_at, FireOutcome.ENQUEUED, trigger=trigger, job_id=job_id
        ):
            return False
        outcome, _, reason = self._send(fire_at)
        if outcome is not FireOutcome.ENQUEUED:
            fires.settle_fire(self._connection, self._row, fire_at, outcome, reason=reason)
            self.trouble = reason
        return outcome is FireOutcome.ENQUEUED

    def save(self, *, next_fire_at: datetime | None, due_at: datetime | None) -> None:
        fires.advance(
            self._connection,
            self._row,
            next_fire_at=next_fire_at,
            due_at=due_at,
            buffered_fire_at=self._buffered,
            last_fire_at=self._last_fire_at,
            last_job_id=self._last_job_id,
            open_jobs=self._open,
        )

    def look_again_at(self, due_at: datetime | None, now: datetime) -> datetime | None:
        """Give when to look at the schedule again: soon, while a fire waits."""
        if self._buffered is None:
            return due_at
        return min(due_at or now + BUFFER_POLL, now + BUFFER_POLL)

    def _drop_buffered(self) -> None:
        fire_at, self._buffered = self._buffered, None
        if fire_at is not None:
            reason = "a later fire is due already, and would cancel its job"
            fires.settle_fire(self._connection, self._row, fire_at, FireOutcome.SKIPPED, reason=reason)

    def _leave(self, fire_at: datetime, decision: OverlapDecision) -> None:
        is_new = fires.note_fire(
            self._connection, self._row, fire_at, decision.outcome, reason=decision.reason
        )
        if is_new and decision.outcome is FireOutcome.BUFFERED:
            self._buffered = fire_at

    def _send(self, fire_at: datetime) -> tuple[FireOutcome, UUID | None, str | None]:
        """Make the job; a schedule whose job cannot be made does not keep others from theirs."""
        job_id = fire_job_id(self._row.tenant, self._row.schedule_id, fire_at)
        try:
            with self._connection.transaction():
                outcome = send_fire(self._app, self._connection, self._row, fire_at, job_id)
        except Exception as error:
            if self._is_outage(error):
                raise
            logger.exception(
                "schedule.fire_failed", extra={"schedule": self._row.name, "task": self._row.task}
            )
            return FireOutcome.FAILED, None, f"{type(error).__name__}: {error}"
        if outcome is Outcome.DEDUPLICATED:
            return FireOutcome.SKIPPED, None, "another job has its singleton key"
        self._last_job_id = job_id
        if self._row.overlap is not Overlap.ALLOW:
            self._open.append(job_id)
        return FireOutcome.ENQUEUED, job_id, None

    def _is_outage(self, error: Exception) -> bool:
        if self._connection.closed or isinstance(error, DatabaseUnavailable):
            return True
        for each in (error, error.__cause__):  # what the broker says has psycopg's error behind it
            if isinstance(each, psycopg.Error) and kind_of(each) in (Kind.LOST, Kind.TRANSIENT):
                return True
        return isinstance(error, OperationalError) and not self._app.shares_database_with_broker


def cancel_jobs(app: Celery, row: ScheduleRow, job_ids: Sequence[UUID], fire_at: datetime) -> None:
    """Cancel earlier jobs of a schedule for a fire's sake; they may go on for a moment."""
    for job_id in job_ids:
        with suppress(JobNotFound):
            app.cancel_job(
                job_id,
                row.tenant,
                reason=f"The schedule {row.name!r} fired again at {fire_at.isoformat()}.",
                cancelled_by="schedule",
            )


def send_fire(
    app: Celery, connection: DriverConnection, row: ScheduleRow, fire_at: datetime, job_id: UUID
) -> Outcome:
    """Send the job of a fire in the connection's transaction, as `celery beat` sends a task; gives what came of it.

    A broker that is elsewhere has no part in the transaction: its message is sent before the commit, and not again if
    the job's row says that it was.
    """
    is_elsewhere = row.engine is Engine.CELERY and not app.shares_database_with_broker
    if is_elsewhere and app.jobs.get(JobKey(tenant=row.tenant, job_id=job_id)) is not None:
        return Outcome.CREATED
    options = fire_options(row, fire_at, job_id)
    within: AbstractContextManager[Any] = nullcontext() if is_elsewhere else app.enqueue_on(connection)
    with within:
        result = apply(app, row, options)
    sent: Sent | None = getattr(result, "job", None)
    return Outcome.CREATED if sent is None else sent.outcome


def apply(app: Celery, row: ScheduleRow, options: dict[str, Any]) -> Any:
    """Send a schedule's task, also one that this process does not know.

    Raises:
        EncryptionError: Its arguments cannot be opened.
    """
    row = open_schedule(app.database.codec, row)
    task, args, kwargs = app.tasks.get(row.task), list(restored(row.args)), dict(restored(row.kwargs))
    if task is not None:
        return task.apply_async(args, kwargs, **options)
    return app.send_task(row.task, args, kwargs, **options)


def _is_job(app: Celery, connection: DriverConnection, tenant: TenantId, job_id: UUID) -> bool:
    return app.jobs.get(JobKey(tenant=tenant, job_id=job_id), connection) is not None


def fire_options(row: ScheduleRow, fire_at: datetime, job_id: UUID) -> dict[str, Any]:
    """Give what `apply_async` is called with for a fire."""
    options: dict[str, Any] = dict(restored(row.options))
    given = {"queue": row.queue, "priority": row.priority, "user_id": row.user_id}
    options |= {name: value for name, value in given.items() if value is not None}
    # Celery's own beat marks its messages so (celery 5.7, beat.py, apply_async).
    options["headers"] = {**(options.get("headers") or {}), "celery_beat_task": True}
    options["job_metadata"] = {**(options.get("job_metadata") or {}), **fire_metadata(row, fire_at)}
    return options | {"task_id": str(job_id), "tenant": row.tenant, "engine": row.engine}


def fire_metadata(row: ScheduleRow, fire_at: datetime) -> Json:
    """Give what the row of a fire's job tells of its schedule."""
    told = {"id": str(row.schedule_id), "name": row.name, "fire_at": fire_at.isoformat()}
    return {"schedule": told}


def _between(row: ScheduleRow, start: datetime, end: datetime) -> list[datetime]:
    if end < start:
        raise UnsupportedOption(
            f"The end, {end.isoformat()}, is before the start, {start.isoformat()}.", hint="Exchange them."
        )
    instants = list(_limited(fires_between(row.parsed, zone_named(row.zone), start, end), BACKFILL_LIMIT + 1))
    if len(instants) > BACKFILL_LIMIT:
        raise UnsupportedOption(
            f"The schedule {row.name!r} has more than {BACKFILL_LIMIT} fires between these instants.",
            hint="Backfill a shorter time.",
        )
    return instants


def _limited(instants: Iterator[datetime], limit: int) -> Iterator[datetime]:
    return (instant for _, instant in zip(range(limit), instants, strict=False))

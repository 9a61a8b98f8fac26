"""A schedule of the table as a Schedule of Temporal.

The table is the truth; Temporal has a copy that fires. Its id is made of the task queue of this installation and the
schedule's own id, so two installations may share a namespace, as they may share it for jobs. What does not carry
our mark is never touched.

Its action starts the job's workflow. Which fire that is, the workflow learns from Temporal: the nominal instant, which
with the schedule's id makes the id of the job (`fire.Fire`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleBackfill,
    ScheduleCalendarSpec,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleListDescription,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import Priority

from jobbridge.app.schedules.commands import queue_of
from jobbridge.codec.schedules import open_schedule
from jobbridge.core.handlers import handler_of
from jobbridge.core.schedules.mirroring import Mirror, mirror
from jobbridge.core.schedules.policies import Overlap
from jobbridge.core.schedules.specs import zone_named
from jobbridge.errors import JobBridgeError
from jobbridge.store.schedules.rows import ScheduleRow
from jobbridge.temporal.deliver.delivery import task_queue_for
from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.client import is_found
from jobbridge.temporal.wire.contract import temporal_priority
from jobbridge.temporal.wire.fire import Fire
from jobbridge.temporal.wire.payloads import if_readable
from jobbridge.temporal.wire.search_attributes import attributes_of_fires

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Memo key of our mark on a Schedule.
MARK = "jobbridge"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Temporal's least.
_LEAST_CATCHUP = timedelta(seconds=10)

_OVERLAP = {
    Overlap.SKIP: ScheduleOverlapPolicy.SKIP,
    Overlap.ALLOW: ScheduleOverlapPolicy.ALLOW_ALL,
    Overlap.BUFFER_ONE: ScheduleOverlapPolicy.BUFFER_ONE,
    Overlap.CANCEL_OTHER: ScheduleOverlapPolicy.CANCEL_OTHER,
}


class NotOurSchedule(JobBridgeError):
    """A Schedule of that id is in Temporal, and somebody else made it."""

    hint = "Delete or rename it in Temporal; JobBridge leaves it alone."


@dataclass(frozen=True, kw_only=True)
class Told:
    """One of our Schedules, as Temporal lists it."""

    id: str
    schedule_id: UUID
    is_paused: bool


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What Temporal is to be told, and how long that holds."""

    schedule: Schedule
    fresh_until: datetime | None


def temporal_id(app: Celery, schedule_id: UUID) -> str:
    """Give the id of a Schedule in Temporal."""
    return f"{app.settings.temporal_job_task_queue}:schedule:{schedule_id}"


def copy_of(app: Celery, row: ScheduleRow, now: datetime) -> Copy:
    """Tell a row in Temporal's words.

    Raises:
        UnsupportedOption: The row was written by hand, or by another release.
        EncryptionError: Its arguments cannot be opened. Temporal gets them sealed as all payloads are.
    """
    row = open_schedule(app.database.codec, row)
    told = mirror(row.parsed, zone_named(row.zone), now)
    schedule = Schedule(
        action=_action(app, row),
        spec=spec_of(
            told,
            comment=f"{row.spec} ({row.zone})",
            jitter=timedelta(seconds=row.jitter_seconds) if row.jitter_seconds else None,
        ),
        policy=SchedulePolicy(
            overlap=_OVERLAP[row.overlap],
            catchup_window=max(timedelta(seconds=row.catchup_seconds), _LEAST_CATCHUP),
        ),
        state=ScheduleState(note=row.note, paused=row.paused),
    )
    return Copy(schedule=schedule, fresh_until=told.fresh_until)


def spec_of(told: Mirror, *, comment: str | None = None, jitter: timedelta | None = None) -> ScheduleSpec:
    """Give Temporal's specification of the same fires."""
    calendars = []
    intervals = []
    if told.calendar is None:
        calendars += [_instant_in_utc(instant) for instant in told.instants]
    else:
        intervals += [_instant_as_interval(instant) for instant in told.instants]
    if told.interval is not None:
        intervals.append(ScheduleIntervalSpec(every=told.interval.interval, offset=told.interval.phase))
    if (cron := told.calendar) is not None:
        calendars.append(
            ScheduleCalendarSpec(
                minute=_ranges(cron.minutes),
                hour=_ranges(cron.hours),
                day_of_month=_ranges(cron.days),
                month=_ranges(cron.months),
                day_of_week=_ranges(cron.weekdays),
                comment=comment,
            )
        )
    return ScheduleSpec(
        calendars=calendars,
        intervals=intervals,
        jitter=jitter,
        time_zone_name=told.zone_name,
    )


def _instant_in_utc(instant: datetime) -> ScheduleCalendarSpec:
    def only(value: int) -> list[ScheduleRange]:
        return [ScheduleRange(value, value)]

    return ScheduleCalendarSpec(
        second=only(instant.second),
        minute=only(instant.minute),
        hour=only(instant.hour),
        day_of_month=only(instant.day),
        month=only(instant.month),
        year=only(instant.year),
    )


def _instant_as_interval(instant: datetime) -> ScheduleIntervalSpec:
    """Give a single instant beside a calendar in another zone.

    The server looks for the first multiple of an interval after now, never before the first one: an interval as long
    as the time from the epoch has its only one there, for decades, and the copy is made anew long before. A phase
    would not do: its own instant is left out (server 1.32, `nextIntervalTime`, which rounds towards zero).
    """
    return ScheduleIntervalSpec(every=instant - _EPOCH)


def _ranges(values: Sequence[int]) -> list[ScheduleRange]:
    ranges: list[ScheduleRange] = []
    for value in values:
        if ranges and ranges[-1].end == value - 1:
            ranges[-1] = ScheduleRange(ranges[-1].start, value)
        else:
            ranges.append(ScheduleRange(value, value))
    return ranges


def _action(app: Celery, row: ScheduleRow) -> ScheduleActionStartWorkflow:
    fire = Fire(
        schedule_id=str(row.schedule_id),
        tenant_id=row.tenant,
        fire_at="",  # Temporal says it when it fires
        version=row.version,
        kind=row.kind.value,
        spec=row.spec,
        zone=row.zone,
    )
    return ScheduleActionStartWorkflow(
        contract.WORKFLOW,
        {"jobName": row.task, "tenantId": row.tenant, "data": _data(app, row)},
        id=f"schedule-{row.schedule_id}",  # Temporal adds the instant
        task_queue=task_queue_for(app, queue_of(app, row.task, row.queue)),
        memo={contract.SCHEDULE_MEMO: fire.memo()},
        priority=Priority(priority_key=temporal_priority(row.priority)),
        static_summary=contract.cut_name(f"{row.task}, by the schedule {row.name}"),
    )


def _data(app: Celery, row: ScheduleRow) -> object:
    """What the job is given should the row not be readable when it fires."""
    if handler_of(app.tasks.get(row.task)) is not None and len(row.args) == 1 and not row.kwargs:
        return row.args[0]
    return {"args": list(row.args), "kwargs": dict(row.kwargs)}


class TemporalSchedules:
    """Our Schedules in Temporal; on the client's loop only.

    Every method raises RPCError when Temporal refuses or cannot be reached.
    """

    def __init__(self, app: Celery, client: Client) -> None:
        self._app = app
        self._client = client
        self._owner = app.settings.temporal_job_task_queue

    async def put(self, row: ScheduleRow, now: datetime) -> datetime | None:
        """Make it, or change it to what the row says; gives when that is to be done again.

        Raises:
            NotOurSchedule: There is one of that id which does not carry our mark.
            UnsupportedOption: The row cannot be told.
        """
        copy = copy_of(self._app, row, now)
        attributes = await attributes_of_fires(self._client, tenant=row.tenant, task=row.task)
        if attributes is not None:
            assert isinstance(copy.schedule.action, ScheduleActionStartWorkflow)
            copy.schedule.action.typed_search_attributes = attributes
        if row.mirrored_version is None or not await self._update(row, copy.schedule):
            try:
                mark = {"owner": self._owner, "scheduleId": str(row.schedule_id), "name": row.name}
                schedule_id = temporal_id(self._app, row.schedule_id)
                await self._client.create_schedule(schedule_id, copy.schedule, memo={MARK: mark})
            except ScheduleAlreadyRunningError:
                await self._update(row, copy.schedule)
            # It counts from when its own workflow begins, which is after the answer. That answers a question.
            await self._handle(row.schedule_id).describe()
        await self._make_up(row, datetime.now(UTC))
        return copy.fresh_until

    async def _make_up(self, row: ScheduleRow, now: datetime) -> None:
        """Have it fire what fell between the row and now: Temporal begins when it is told.

        What it has fired already has its workflow, or its row, and is not made twice.
        """
        if row.paused or row.next_fire_at is None or row.next_fire_at > now:
            return
        start = max(row.next_fire_at, now - timedelta(seconds=row.catchup_seconds)) - timedelta(seconds=1)
        handle = self._handle(row.schedule_id)
        await handle.backfill(ScheduleBackfill(start_at=start, end_at=now))

    async def remove(self, schedule_id: UUID) -> None:
        """Delete it, if it is there; the workflows that it started go on."""
        await is_found(self._handle(schedule_id).delete())

    async def exists(self, schedule_id: UUID) -> bool:
        """Ask for it by name: a listing may be some seconds old."""
        return await is_found(self._handle(schedule_id).describe())

    async def ours(self) -> AsyncIterator[Told]:
        """List those that carry the mark of this installation."""
        async for listed in await self._client.list_schedules():
            mark = await if_readable(listed.memo_value(MARK, default=None))
            told = self._read(listed, mark)
            if told is not None:
                yield told

    def _read(self, listed: ScheduleListDescription, mark: object) -> Told | None:
        if not isinstance(mark, dict) or mark.get("owner") != self._owner:
            return None
        try:
            schedule_id = UUID(str(mark.get("scheduleId")))
        except ValueError:
            return None
        if listed.id != temporal_id(self._app, schedule_id):
            return None
        is_paused = listed.schedule.state.paused if listed.schedule else False
        return Told(id=listed.id, schedule_id=schedule_id, is_paused=is_paused)

    async def _update(self, row: ScheduleRow, schedule: Schedule) -> bool:
        """Change it; False when there is none."""
        handle = self._handle(row.schedule_id)

        async def change(found: ScheduleUpdateInput) -> ScheduleUpdate:
            mark = await if_readable(found.description.memo_value(MARK, default=None))
            if not isinstance(mark, dict) or mark.get("owner") != self._owner:
                raise NotOurSchedule(f"The Schedule {handle.id!r} in Temporal was made by somebody else.")
            return ScheduleUpdate(schedule)

        return await is_found(handle.update(change))

    def _handle(self, schedule_id: UUID) -> ScheduleHandle:
        return self._client.get_schedule_handle(temporal_id(self._app, schedule_id))

"""What callers do with schedules: `app.schedules`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.app.errors import sending
from jobbridge.app.options import user_id_of
from jobbridge.app.publish.commands import arguments_for, find_task
from jobbridge.app.schedules.declared import (
    app_zone,
    declare_missing,
    engine_for,
    refused_declarations,
    restored,
    said_of,
    sendable,
    sync_declared,
)
from jobbridge.app.schedules.firing import ScheduleFirer
from jobbridge.app.schedules.rehearsal import read_by_all, rehearse
from jobbridge.codec.schedules import open_schedule, readable_schedule
from jobbridge.core.enqueue import check_queue
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import SYSTEM_TENANT, Engine, TenantId
from jobbridge.core.schedules.definition import ScheduleDefinition, overlap_named
from jobbridge.core.schedules.fires import fires
from jobbridge.core.schedules.policies import DEFAULT_CATCHUP, Overlap
from jobbridge.core.schedules.specs import ScheduleSpec, parse_spec, zone_named
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import DatabaseError, ScheduleNotFound, UnsupportedOption
from jobbridge.store.schedules.repository import SaveOutcome, ScheduleStore
from jobbridge.store.schedules.rows import FireRow, ScheduleRow

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleHandle:
    """A schedule that was asked for.

    Attributes:
        outcome: created, updated or unchanged.
        next_fire_at: Nominal; None: it fires no more, or is paused.
        warning: Why nobody could run its jobs now; None: somebody can.
    """

    schedule_id: UUID
    tenant: TenantId
    name: str
    outcome: SaveOutcome
    next_fire_at: datetime | None
    warning: str | None = None


class ScheduleService:
    """Makes, changes, pauses and deletes schedules, and tells their history.

    A schedule is named by its name or its id; `tenant` is asked for where the name is not unique.

    Args:
        app: Whose schedules.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.store = ScheduleStore(app.database)

    @sending()
    def create(
        self,
        task: str,
        when: ScheduleSpec | str | timedelta | datetime,
        data: Any = None,
        *,
        name: str | None = None,
        tenant: str | None = None,
        zone: str | None = None,
        overlap: Overlap | str = Overlap.SKIP,
        catchup: timedelta = DEFAULT_CATCHUP,
        jitter: timedelta = timedelta(0),
        engine: Engine | str | None = None,
        default_engine: Engine | None = None,
        queue: str | None = None,
        priority: int | None = None,
        user_id: UUID | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires: timedelta | None = None,
    ) -> ScheduleHandle:
        """Make the schedule of that tenant and name, or change it to this.

        Args:
            task: The handler, or task.
            when: Cron, an interval in words or as a timedelta, or an instant.
            data: For each of its jobs, as for `enqueue`.
            name: By default the task's.
            tenant: Whose; else the one in the data.
            zone: Whose wall clock cron means; the app's by default.
            overlap: What a fire does while an earlier job has not ended.
            catchup: How late a fire may be and still make its job.
            jitter: A fire comes up to so much later than its nominal instant.
            engine: Who fires it and runs its jobs; else as for a job.
            default_engine: This one, unless the task says otherwise.
            queue: Else the task's, or as routed.
            priority: 0 to 9, higher first.
            user_id: Who asked for it.
            metadata: Kept in the rows of its jobs.
            expires: A job does not start later than so long after it was made.

        Raises:
            UnknownHandler: No task has that name here; suggests the nearest.
            InvalidJobData: The data does not fit.
            TenantRequired: The handler needs a tenant.
            UnsupportedOption: A value cannot be honoured, or code declares the schedule of that name.
            PayloadTooLarge: Its jobs could not be sent.
        """
        known = find_task(self._app, task)
        args, kwargs, owner = _prepared(known, data, tenant)
        definition = ScheduleDefinition(
            name=name or task,
            task=task,
            spec=parse_spec(when),
            engine=engine_for(self._app, known, engine, default_engine),
            tenant=owner,
            args=args,
            kwargs=kwargs,
            options=_options(metadata, expires),
            zone=zone or app_zone(self._app),
            overlap=overlap_named(overlap),
            catchup=catchup,
            jitter=jitter,
            queue=queue,
            priority=priority,
            user_id=None if user_id is None else user_id_of(user_id),
        )
        return self.save(definition)

    def tenant_of(self, task: str, data: Any) -> TenantId:
        """Give the tenant that a schedule of that data belongs to. Raises as `create`."""
        return _prepared(find_task(self._app, task), data, None)[2]

    @sending()
    def update(self, schedule: str | UUID, tenant: str | None = None, **changes: Any) -> ScheduleHandle:
        """Change some of a schedule's definition: `when`, or any field of ScheduleDefinition.

        Raises:
            ScheduleNotFound: There is none.
            UnsupportedOption: A value cannot be honoured, or code declares it.
            EncryptionError: What is to stay cannot be opened.
        """
        row = open_schedule(self._app.database.codec, self._found(schedule, tenant))
        if "when" in changes:
            changes["spec"] = parse_spec(changes.pop("when"))
        if "overlap" in changes:
            changes["overlap"] = overlap_named(changes["overlap"])
        fixed = {"name", "tenant", "declared_by"} & set(changes)
        if fixed:
            raise UnsupportedOption(
                f"A schedule's {min(fixed)} cannot be changed.", hint="Delete it, and create another."
            )
        self._refuse_declared(row, "changed")
        return self.save(replace(row.definition, **changes))

    @sending()
    def save(self, definition: ScheduleDefinition) -> ScheduleHandle:
        """Make a schedule what the definition says. Raises as `create`."""
        definition = sendable(self._app, definition)
        # Others are for Celery's routers and receivers, and perhaps only who fires it has those.
        rehearse(self._app, replace(definition, options=restored(read_by_all(definition.options))))
        if definition.queue is not None:
            check_queue(definition.queue, event_prefix=self._app.conf.event_queue_prefix)
        saved = self.store.save(definition)
        if saved.outcome is SaveOutcome.NOT_OURS:
            self._refuse_declared(saved.row, "changed")
        return ScheduleHandle(
            schedule_id=definition.schedule_id,
            tenant=definition.tenant,
            name=definition.name,
            outcome=saved.outcome,
            next_fire_at=None if saved.row.paused else saved.row.next_fire_at,
            warning=self._warning(definition),
        )

    def declare_missing(self, engine: Engine) -> list[str]:
        """Make the schedules of an engine that code declares and that there never were; gives their names."""
        return declare_missing(self._app, engine)

    @sending()
    def sync(self) -> None:
        """Make the app's declared schedules what its code says, as beat does at its start."""
        sync_declared(self._app)

    def find(self, schedule: str | UUID, tenant: str | None = None) -> ScheduleRow:
        """Give the schedule of that name or id; arguments that cannot be opened here say so.

        Raises:
            ScheduleNotFound: There is none, or several tenants have one.
        """
        return readable_schedule(self._app.database.codec, self._found(schedule, tenant))

    def _found(self, schedule: str | UUID, tenant: str | None) -> ScheduleRow:
        found = self.store.find(str(schedule), None if tenant is None else TenantId(tenant))
        if not found:
            raise ScheduleNotFound.named(str(schedule))
        if len(found) > 1:
            raise ScheduleNotFound(
                f"Several tenants have a schedule {str(schedule)!r}.", hint="Pass the tenant, or its id."
            )
        return found[0]

    @sending()
    def list(
        self, *, tenant: str | None = None, task: str | None = None, engine: Engine | None = None
    ) -> Sequence[ScheduleRow]:
        """Give all schedules by tenant and name; arguments that cannot be opened here say so."""
        known, codec = None if tenant is None else TenantId(tenant), self._app.database.codec
        rows = self.store.list(tenant=known, task=task, engine=engine, limit=None)
        return [readable_schedule(codec, row) for row in rows]

    def refused(self) -> Sequence[str]:
        """Say which schedules the app's code declares that cannot be honoured, and why."""
        return [said_of(name, reason) for name, reason in refused_declarations(self._app).items()]

    @sending()
    def history(
        self, schedule: str | UUID, tenant: str | None = None, *, limit: int = 100
    ) -> Sequence[FireRow]:
        """Give what became of its fires, the newest first."""
        row = self.find(schedule, tenant)
        return self.store.history(row.tenant, row.schedule_id, limit=limit)

    def upcoming(self, row: ScheduleRow, *, count: int = 5) -> Sequence[datetime]:
        """Give its next nominal instants; none while it is paused."""
        if row.paused or row.next_fire_at is None:
            return []
        after = row.next_fire_at - timedelta(microseconds=1)
        return list(islice(fires(row.parsed, zone_named(row.zone), after), count))

    @sending()
    def pause(self, schedule: str | UUID, tenant: str | None = None, *, note: str | None = None) -> None:
        """Keep it from firing until `resume`; its running jobs go on."""
        row = self.find(schedule, tenant)
        self.store.pause(row.tenant, row.schedule_id, note=note)

    @sending()
    def resume(self, schedule: str | UUID, tenant: str | None = None) -> None:
        """Let it fire again, from now on; what fell into the pause is not made up for."""
        row = self.find(schedule, tenant)
        self.store.resume(row.tenant, row.schedule_id)

    @sending()
    def delete(self, schedule: str | UUID, tenant: str | None = None) -> None:
        """Delete it; its history and the jobs that it made stay.

        Raises:
            ScheduleNotFound: There is none.
            UnsupportedOption: Code declares it.
        """
        row = self.find(schedule, tenant)
        self._refuse_declared(row, "deleted")
        self.store.delete(row.tenant, row.schedule_id)

    @sending()
    def run_now(self, schedule: str | UUID, tenant: str | None = None) -> UUID:
        """Make a job now, whatever its times and its overlap policy, also while it is paused; gives the job's id."""
        row = self.find(schedule, tenant)
        return ScheduleFirer(self._app).fire_now(row.tenant, row.schedule_id)

    @sending()
    def backfill(
        self, schedule: str | UUID, start: datetime, end: datetime, tenant: str | None = None
    ) -> Sequence[datetime]:
        """Make the jobs of all fires from `start` to `end` that have none; gives their instants."""
        row = self.find(schedule, tenant)
        return ScheduleFirer(self._app).backfill(row.tenant, row.schedule_id, start, end)

    def _refuse_declared(self, row: ScheduleRow, done: str) -> None:
        if row.declared_by is not None:
            where = f"the code of {row.declared_by or 'an app'!r}"
            raise UnsupportedOption(
                f"The schedule {row.name!r} is declared in {where}, and cannot be {done}.",
                hint="Change the code and start beat anew; or pause the schedule.",
            )

    def _warning(self, definition: ScheduleDefinition) -> str | None:
        """Say at once what would show only when the schedule fires: that nobody can run its jobs."""
        try:
            queue = queue_of(self._app, definition.task, definition.queue)
            able = self._app.workers.who_can_run(definition.task, queue=queue, engine=definition.engine)
        except DatabaseError:
            return None  # unknown is not absent
        if able:
            return None
        told = (
            f"No running {definition.engine} worker serves the queue {queue!r} and knows {definition.task!r}."
        )
        logger.warning(
            "schedule.nobody_runs_it",
            extra={"schedule": definition.name, "task": definition.task, "queue": queue},
        )
        return told


def queue_of(app: Celery, task: str, queue: str | None) -> str:
    """Name the queue that a task's message goes to."""
    known = app.tasks.get(task)
    own = getattr(handler_of(known), "queue", None) or getattr(known, "queue", None)
    chosen = queue or own
    options = {"queue": chosen} if chosen else {}
    routed = app.amqp.router.route(dict(options), task)
    found = routed.get("queue") or chosen or app.conf.task_default_queue
    return str(getattr(found, "name", found))


def _prepared(task: Any, data: Any, tenant: str | None) -> tuple[list[Any], dict[str, Any], TenantId]:
    args, kwargs = arguments_for(task, data)
    given = None if tenant is None else tenant_named(tenant)
    if handler_of(task) is not None:
        args, kwargs, given = task.prepare_arguments(args, kwargs, given)
    return args, kwargs, given or SYSTEM_TENANT


def _options(metadata: Mapping[str, Any] | None, expires: timedelta | None) -> dict[str, Any]:
    if expires is not None and expires <= timedelta(0):
        raise UnsupportedOption(f"expires is {expires}.", hint="Pass a duration above zero.")
    options: dict[str, Any] = {}
    if metadata:
        options["job_metadata"] = dict(metadata)
    if expires is not None:
        options["expires"] = expires.total_seconds()
    return options

"""Rows of schedules and fires, as they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString, Self
from uuid import UUID

from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.core.schedules.planning import ScheduleState
from jobbridge.core.schedules.policies import FireOutcome, Overlap, Trigger
from jobbridge.core.schedules.specs import ScheduleSpec, SpecKind, read_spec, zone_named

#: What `ScheduleRow` is made of.
SCHEDULE_COLUMNS: LiteralString = """
    tenant, schedule_id, name, task, args, kwargs, options, kind, spec, zone, overlap, catchup_seconds, jitter_seconds,
    engine, queue, priority, user_id, declared_by, paused, note, version, next_fire_at, due_at, buffered_fire_at,
    last_fire_at, last_job_id, open_jobs, mirrored_version, mirrored_until, mirror_error, created_at, updated_at,
    deleted_at
"""
FIRE_COLUMNS: LiteralString = """
    tenant, schedule_id, fire_at, trigger, outcome, job_id, reason, missed_until, fired_at
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleRow:
    """A row of `job_schedules`.

    Attributes:
        args: Sealed where there are keys, as `kwargs`: see `jobbridge.codec.schedules`.
        spec: The text; `parsed` reads it.
        version: Grows with each change of the definition, with pause, resume and deletion.
        next_fire_at: Nominal, without jitter; None: it fires no more.
        due_at: When a scheduler of ours looks at it next; None: never.
        buffered_fire_at: The fire that waits for an earlier job's end.
        open_jobs: Jobs that had not ended when it fired last.
        mirrored_version: What Temporal was told last.
    """

    tenant: TenantId
    schedule_id: UUID
    name: str
    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    kind: SpecKind
    spec: str
    zone: str
    overlap: Overlap
    catchup_seconds: int
    jitter_seconds: int
    engine: Engine
    queue: str | None
    priority: int | None
    user_id: UUID | None
    declared_by: str | None
    paused: bool
    note: str | None
    version: int
    next_fire_at: datetime | None
    due_at: datetime | None
    buffered_fire_at: datetime | None
    last_fire_at: datetime | None
    last_job_id: UUID | None
    open_jobs: Sequence[UUID]
    mirrored_version: int | None
    mirrored_until: datetime | None
    mirror_error: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    @classmethod
    def of(cls, **columns: Any) -> Self:
        """Make one of a row's columns."""
        columns["kind"] = SpecKind(columns["kind"])
        columns["overlap"] = Overlap(columns["overlap"])
        columns["engine"] = Engine.parse(columns["engine"])
        return cls(**columns)

    @property
    def parsed(self) -> ScheduleSpec:
        """The spec.

        Raises:
            UnsupportedOption: The row was written by hand, or by another release.
        """
        return read_spec(self.kind, self.spec)

    @property
    def state(self) -> ScheduleState:
        """What planning asks.

        Raises:
            UnsupportedOption: The row was written by hand, or by another release, or the zone is not known here.
        """
        return ScheduleState(
            schedule_id=self.schedule_id,
            spec=self.parsed,
            zone=zone_named(self.zone),
            next_fire_at=self.next_fire_at,
            catchup=timedelta(seconds=self.catchup_seconds),
            jitter=timedelta(seconds=self.jitter_seconds),
            is_paused=self.paused,
        )

    @property
    def definition(self) -> ScheduleDefinition:
        """What was declared; raises as `state`."""
        return ScheduleDefinition(
            name=self.name,
            task=self.task,
            spec=self.parsed,
            engine=self.engine,
            tenant=self.tenant,
            args=self.args,
            kwargs=self.kwargs,
            options=self.options,
            zone=self.zone,
            overlap=self.overlap,
            catchup=timedelta(seconds=self.catchup_seconds),
            jitter=timedelta(seconds=self.jitter_seconds),
            queue=self.queue,
            priority=self.priority,
            user_id=self.user_id,
            declared_by=self.declared_by,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FireRow:
    """A row of `job_schedule_fires`.

    Attributes:
        fire_at: Nominal, without jitter; of a manual run, when it was asked for.
        missed_until: With `missed`: this fire, and all before that instant.
        fired_at: When that was written.
    """

    tenant: TenantId
    schedule_id: UUID
    fire_at: datetime
    trigger: Trigger
    outcome: FireOutcome
    job_id: UUID | None
    reason: str | None
    missed_until: datetime | None
    fired_at: datetime

    @classmethod
    def of(cls, **columns: Any) -> Self:
        """Make one of a row's columns."""
        columns["trigger"] = Trigger(columns["trigger"])
        columns["outcome"] = FireOutcome(columns["outcome"])
        return cls(**columns)


def as_json(value: Any) -> str:
    """Write what is sent: equal values make equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

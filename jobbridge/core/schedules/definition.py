"""What a person declares as a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from jobbridge.core.keys import SYSTEM_TENANT, Engine, TenantId
from jobbridge.core.schedules.policies import DEFAULT_CATCHUP, Overlap, schedule_id_for
from jobbridge.core.schedules.specs import ScheduleSpec, parse_spec, zone_named
from jobbridge.errors import UnsupportedOption

NAME_LIMIT = 255
_LONGEST = timedelta(days=3660)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """When, and how: what `@job(schedule=…)` takes where a cron expression or an interval alone does not say enough.

    Attributes:
        when: Cron, an interval in words, a timedelta, or an instant.
        zone: Whose wall clock cron means; None: the app's.
        overlap: What a fire does while an earlier job has not ended.
        catchup: How late a fire may be and still make its job.
        jitter: A fire comes up to so much later than its nominal instant.

    Raises:
        UnsupportedOption: A value cannot be honoured.
    """

    when: ScheduleSpec | str | timedelta | datetime
    zone: str | None = None
    overlap: Overlap | str = Overlap.SKIP
    catchup: timedelta = DEFAULT_CATCHUP
    jitter: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "when", parse_spec(self.when))
        object.__setattr__(self, "overlap", overlap_named(self.overlap))
        if self.zone is not None:
            zone_named(self.zone)
        _check_duration("catchup", self.catchup, least=_SECOND)
        _check_duration("jitter", self.jitter, least=timedelta(0))


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleDefinition:
    """When, and what: one row of `job_schedules`, but for what happens to it.

    Attributes:
        name: Unique for the tenant; with the tenant it makes the schedule's id.
        task: The name of the task, or of the handler.
        options: More of `apply_async`'s.
        zone: Whose wall clock cron means; an IANA name.
        overlap: What a fire does while an earlier job has not ended.
        catchup: How late a fire may be and still make its job; whole seconds.
        jitter: A fire comes up to so much later than its nominal instant, always by the same; whole seconds.
        engine: Who fires it and runs its jobs.
        declared_by: The app whose code declares it; None: a person or a program made it.

    Raises:
        UnsupportedOption: A value cannot be honoured.
    """

    name: str
    task: str
    spec: ScheduleSpec
    engine: Engine
    tenant: TenantId = SYSTEM_TENANT
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    zone: str = "UTC"
    overlap: Overlap = Overlap.SKIP
    catchup: timedelta = DEFAULT_CATCHUP
    jitter: timedelta = timedelta(0)
    queue: str | None = None
    priority: int | None = None
    user_id: UUID | None = None
    declared_by: str | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        zone_named(self.zone)
        _check_duration("catchup", self.catchup, least=_SECOND)
        _check_duration("jitter", self.jitter, least=timedelta(0))

    @property
    def schedule_id(self) -> UUID:
        return schedule_id_for(self.tenant, self.name)

    @property
    def time_zone(self) -> ZoneInfo:
        return zone_named(self.zone)


def overlap_named(name: Overlap | str) -> Overlap:
    """Read the name of an overlap policy.

    Raises:
        UnsupportedOption: There is none of that name.
    """
    try:
        return Overlap(str(name).replace("-", "_"))
    except ValueError:
        raise UnsupportedOption(
            f"overlap is {str(name)!r}, which there is not.", hint=f"Use one of: {', '.join(Overlap)}."
        ) from None


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_LIMIT or "\x00" in name:
        raise UnsupportedOption(
            f"The schedule's name is {str(name)[:60]!r}.",
            hint=f"Pass text of 1 to {NAME_LIMIT} characters without NUL.",
        )


def _check_duration(option: str, value: timedelta, *, least: timedelta) -> None:
    if value % _SECOND or not least <= value <= _LONGEST:
        raise UnsupportedOption(
            f"{option} is {value}.", hint=f"Pass whole seconds, from {least} to ten years."
        )

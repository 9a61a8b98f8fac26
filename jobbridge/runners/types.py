"""What the runner API takes and gives."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from jobbridge.app.options import check_singleton, engine_named, policy_named, user_id_of
from jobbridge.core.enqueue import Outcome, SingletonPolicy
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.schedules.definition import overlap_named
from jobbridge.core.schedules.policies import Overlap
from jobbridge.core.schedules.specs import zone_named
from jobbridge.core.status import JobStatus
from jobbridge.errors import UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobRow


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleOptions:
    """How a job is to run. Each is honoured on both engines, or refused here.

    Attributes:
        run_at: Not before this instant.
        singleton_key: At most one job of the tenant that has not ended has this key.
        singleton_policy: `skip` (default), `replace` or `raise`, when another job has the key.
        priority: 0 to 9, higher first.
        user_id: Who asked for it; never guessed.
        metadata: Kept in the row.
        queue: Else the handler's.
        expires: It does not start after that instant, or so long after now.
        tenant: Else the `tenantId` of the data.
        engine: This one, whatever the runner, the handler and the settings say.
        timezone: Of a recurring job: whose wall clock cron means; the app's by default.
        overlap: Of a recurring job: what it does while an earlier one has not ended; `skip` by default.
        catchup: Of a recurring job: how late it may be and still be sent; a day by default.
        jitter: Of a recurring job: it comes up to so much later.

    Raises:
        UnsupportedOption: A value cannot be honoured.
    """

    run_at: datetime | None = None
    singleton_key: str | None = None
    singleton_policy: SingletonPolicy | str | None = None
    priority: int | None = None
    user_id: UUID | str | None = None
    metadata: Mapping[str, Any] | None = None
    queue: str | None = None
    expires: datetime | timedelta | None = None
    tenant: str | None = None
    engine: Engine | str | None = None
    timezone: str | None = None
    overlap: Overlap | str | None = None
    catchup: timedelta | None = None
    jitter: timedelta | None = None

    def __post_init__(self) -> None:
        _check_instant("run_at", self.run_at)
        if not isinstance(self.expires, timedelta):
            _check_instant("expires", self.expires)
        elif self.expires <= timedelta():
            raise UnsupportedOption(f"expires is {self.expires}.", hint="Pass a duration above zero.")
        _check_priority(self.priority)
        if self.user_id is not None:
            user_id_of(self.user_id)
        if self.engine is not None:
            engine_named(self.engine)
        policy = None if self.singleton_policy is None else policy_named(self.singleton_policy)
        check_singleton(self.singleton_key, policy)
        _check_text("queue", self.queue)
        _check_text("tenant", self.tenant)
        if self.timezone is not None:
            zone_named(self.timezone)
        if self.overlap is not None:
            overlap_named(self.overlap)
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise UnsupportedOption(f"metadata is {self.metadata!r}.", hint="Pass a mapping.")

    def of_one_job(self) -> dict[str, Any]:
        """Give those that `app.enqueue` and `app.fan_out` take for a job, or a parent."""
        names = ("tenant", "engine", "run_at", "user_id", "expires", "singleton_key", "singleton_policy")
        metadata = None if self.metadata is None else dict(self.metadata)
        return {name: getattr(self, name) for name in names} | {"metadata": metadata}

    def refuse_recurrence(self) -> None:
        """Refuse what only a recurring job has.

        Raises:
            UnsupportedOption: There is some.
        """
        for name in ("timezone", "overlap", "catchup", "jitter"):
            value = getattr(self, name)
            if value is not None:
                raise UnsupportedOption(
                    f"{name} is {str(value)!r}, and this job runs once.",
                    hint="Leave it out, or use schedule_recurring_job.",
                )

    @classmethod
    def of(cls, options: ScheduleOptions | Mapping[str, Any] | None) -> ScheduleOptions:
        """Read options that may be a mapping.

        Raises:
            UnsupportedOption: There is no option of that name, or a value cannot be honoured.
        """
        if isinstance(options, ScheduleOptions):
            return options
        given = dict(options or {})
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                did_you_mean = f" Did you mean {near[0]!r}?" if near else ""
                raise UnsupportedOption(
                    f"There is no option {name!r}.{did_you_mean}", hint=f"Use one of: {', '.join(known)}."
                )
        return cls(**given)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduledJob:
    """What came of asking for a job.

    Attributes:
        job_id: Of the new job; after `deduplicated`, of the one that there was before.
        external_id: How its engine knows it.
        outcome: created, deduplicated or replaced.
        warning: Why no worker could run it now, as of half a minute ago; None: one can.
    """

    job_id: UUID
    external_id: str
    outcome: Outcome
    warning: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStatusReport:
    """How a job is.

    Attributes:
        progress: 0 to 100; None: not told.
        attempt: Of the last start; 0: it did not start yet.
    """

    job_id: UUID
    tenant_id: TenantId
    name: str
    status: JobStatus
    progress: float | None
    progress_message: str | None
    error: str | None
    result: Any
    metadata: Mapping[str, Any]
    attempt: int
    max_attempts: int | None
    runner_type: Engine
    external_id: str | None
    run_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    @classmethod
    def of(cls, row: JobRow) -> Self:
        """Read a job's row."""
        other = {"tenant_id": "tenant", "name": "type"}
        return cls(**{field.name: getattr(row, other.get(field.name, field.name)) for field in fields(cls)})


def _check_instant(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, datetime):
        raise UnsupportedOption(f"{name} is {value!r}.", hint="Pass a datetime with a time zone.")
    if value.tzinfo is None:
        raise UnsupportedOption(
            f"{name} is {value.isoformat()}, which has no time zone.",
            hint="Add one: datetime.now(UTC), or value.replace(tzinfo=ZoneInfo(...)).",
        )


def _check_priority(value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9):
        raise UnsupportedOption(f"priority is {value!r}.", hint="Pass 0 to 9; higher runs first.")


def _check_text(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise UnsupportedOption(f"{name} is {value!r}.", hint="Pass text, or leave it out.")

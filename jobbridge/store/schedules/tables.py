"""The tables `job_schedules` and `job_schedule_fires` as SQLAlchemy metadata.

What shaped them:

- One look finds what is due: `due_at` is when a scheduler of ours must look at the row next, and null when it never
  need (paused, over, deleted, or Temporal fires it). Its partial index is the only one that changes with a fire, and
  with one of Temporal's that of `next_fire_at`.
- `json` and not `jsonb` for what is sent: it comes out as it went in.
- A deleted schedule keeps its row for a while (`deleted_at`), so that who mirrors it to Temporal can tell a schedule
  that was deleted from one that it cannot see.
- `open_jobs` are the jobs that an overlap policy must ask about; ended ones leave it with the next fire.
- Every key and index contains `tenant`, as in `tables`.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from jobbridge.core.schedules.policies import FireOutcome, Overlap, Trigger
from jobbridge.core.schedules.specs import SpecKind
from jobbridge.store.jobs.tables import metadata

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}
_NOW = text("clock_timestamp()")


def _one_of(column: str, words: type[SpecKind | Overlap | FireOutcome | Trigger]) -> str:
    return f"{column} IN ({', '.join(repr(word.value) for word in words)})"


job_schedules = Table(
    "job_schedules",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("schedule_id", Uuid, nullable=False),  # of tenant and name: see schedule_id_for
    Column("name", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("args", JSON, nullable=False, server_default=text("'[]'")),
    Column("kwargs", JSON, nullable=False, server_default=text("'{}'")),
    Column("options", JSON, nullable=False, server_default=text("'{}'")),  # more of apply_async's
    Column("kind", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("zone", Text, nullable=False, server_default=text("'UTC'")),
    Column("overlap", Text, nullable=False),
    Column("catchup_seconds", Integer, nullable=False),
    Column("jitter_seconds", Integer, nullable=False, server_default=text("0")),
    Column("engine", Text, nullable=False),  # who fires it, and runs its jobs
    Column("queue", Text),
    Column("priority", SmallInteger),
    Column("user_id", Uuid),
    Column("declared_by", Text),  # the app whose code declares it; null: a person or a program made it
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("note", Text),
    Column(
        "version", Integer, nullable=False, server_default=text("1")
    ),  # grows with each change of its definition
    Column("next_fire_at", DateTime(timezone=True)),  # nominal, without jitter
    Column("due_at", DateTime(timezone=True)),
    Column("buffered_fire_at", DateTime(timezone=True)),
    Column("last_fire_at", DateTime(timezone=True)),
    Column("last_job_id", Uuid),
    Column("open_jobs", ARRAY(Uuid), nullable=False, server_default=text("'{}'")),
    Column("mirrored_version", Integer),  # what Temporal was told last; null: nothing
    Column("mirrored_until", DateTime(timezone=True)),  # tell it again then
    Column("mirror_error", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("deleted_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant", "schedule_id", name="job_schedules_pkey"),
    UniqueConstraint("tenant", "name", name="job_schedules_name_key"),
    CheckConstraint(_one_of("kind", SpecKind), name="job_schedules_kind_check"),
    CheckConstraint(_one_of("overlap", Overlap), name="job_schedules_overlap_check"),
    postgresql_with=_UPDATED_OFTEN,
)

Index(
    "job_schedules_due_idx",
    job_schedules.c.due_at,
    job_schedules.c.tenant,
    postgresql_where=job_schedules.c.due_at.is_not(None),
)

# What a reconciler asks for every few seconds: few rows, or none, among however many.
Index(
    "job_schedules_to_tell_idx",
    job_schedules.c.tenant,
    job_schedules.c.schedule_id,
    postgresql_where=text(
        "engine = 'temporal' AND deleted_at IS NULL AND mirrored_version IS DISTINCT FROM version"
    ),
)
Index(
    "job_schedules_to_tell_again_idx",
    job_schedules.c.mirrored_until,
    job_schedules.c.tenant,
    postgresql_where=job_schedules.c.mirrored_until.is_not(None),
)
Index(
    "job_schedules_to_remove_idx",
    job_schedules.c.tenant,
    job_schedules.c.schedule_id,
    postgresql_where=text(
        "mirrored_version IS NOT NULL AND (deleted_at IS NOT NULL OR engine <> 'temporal')"
    ),
)
Index(
    "job_schedules_overdue_idx",
    job_schedules.c.next_fire_at,
    job_schedules.c.tenant,
    postgresql_where=text("engine = 'temporal' AND deleted_at IS NULL AND NOT paused"),
)

# History, and what keeps two schedulers from firing twice: who inserts the row makes the job.
job_schedule_fires = Table(
    "job_schedule_fires",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("schedule_id", Uuid, nullable=False),
    Column(
        "fire_at", DateTime(timezone=True), nullable=False
    ),  # nominal; of a manual run, when it was asked for
    Column("trigger", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("job_id", Uuid),
    Column("reason", Text),
    Column("missed_until", DateTime(timezone=True)),  # with `missed`: this fire and all before that instant
    Column("fired_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("tenant", "schedule_id", "fire_at", name="job_schedule_fires_pkey"),
    CheckConstraint(_one_of("trigger", Trigger), name="job_schedule_fires_trigger_check"),
    CheckConstraint(_one_of("outcome", FireOutcome), name="job_schedule_fires_outcome_check"),
)

# The pruner deletes the oldest.
Index("job_schedule_fires_age_idx", job_schedule_fires.c.fired_at, job_schedule_fires.c.tenant)

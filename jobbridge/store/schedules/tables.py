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

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from jobbridge.core.schedules.policies import FireOutcome, Overlap, Trigger
from jobbridge.core.schedules.specs import SpecKind
from jobbridge.store.jobs.tables import metadata

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}
_NOW = sa.text("clock_timestamp()")


def _one_of(column: str, words: type[SpecKind | Overlap | FireOutcome | Trigger]) -> str:
    return f"{column} IN ({', '.join(repr(word.value) for word in words)})"


job_schedules = sa.Table(
    "job_schedules",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("schedule_id", sa.Uuid, nullable=False),  # of tenant and name: see schedule_id_for
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("args", sa.JSON, nullable=False, server_default=sa.text("'[]'")),
    sa.Column("kwargs", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("options", sa.JSON, nullable=False, server_default=sa.text("'{}'")),  # more of apply_async's
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("zone", sa.Text, nullable=False, server_default=sa.text("'UTC'")),
    sa.Column("overlap", sa.Text, nullable=False),
    sa.Column("catchup_seconds", sa.Integer, nullable=False),
    sa.Column("jitter_seconds", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("engine", sa.Text, nullable=False),  # who fires it, and runs its jobs
    sa.Column("queue", sa.Text),
    sa.Column("priority", sa.SmallInteger),
    sa.Column("user_id", sa.Uuid),
    sa.Column("declared_by", sa.Text),  # the app whose code declares it; null: a person or a program made it
    sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("note", sa.Text),
    sa.Column(
        "version", sa.Integer, nullable=False, server_default=sa.text("1")
    ),  # grows with each change of its definition
    sa.Column("next_fire_at", sa.DateTime(timezone=True)),  # nominal, without jitter
    sa.Column("due_at", sa.DateTime(timezone=True)),
    sa.Column("buffered_fire_at", sa.DateTime(timezone=True)),
    sa.Column("last_fire_at", sa.DateTime(timezone=True)),
    sa.Column("last_job_id", sa.Uuid),
    sa.Column("open_jobs", ARRAY(sa.Uuid), nullable=False, server_default=sa.text("'{}'")),
    sa.Column("mirrored_version", sa.Integer),  # what Temporal was told last; null: nothing
    sa.Column("mirrored_until", sa.DateTime(timezone=True)),  # tell it again then
    sa.Column("mirror_error", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("deleted_at", sa.DateTime(timezone=True)),
    sa.PrimaryKeyConstraint("tenant", "schedule_id", name="job_schedules_pkey"),
    sa.UniqueConstraint("tenant", "name", name="job_schedules_name_key"),
    sa.CheckConstraint(_one_of("kind", SpecKind), name="job_schedules_kind_check"),
    sa.CheckConstraint(_one_of("overlap", Overlap), name="job_schedules_overlap_check"),
    postgresql_with=_UPDATED_OFTEN,
)

sa.Index(
    "job_schedules_due_idx",
    job_schedules.c.due_at,
    job_schedules.c.tenant,
    postgresql_where=job_schedules.c.due_at.is_not(None),
)

# What a reconciler asks for every few seconds: few rows, or none, among however many.
sa.Index(
    "job_schedules_to_tell_idx",
    job_schedules.c.tenant,
    job_schedules.c.schedule_id,
    postgresql_where=sa.text(
        "engine = 'temporal' AND deleted_at IS NULL AND mirrored_version IS DISTINCT FROM version"
    ),
)
sa.Index(
    "job_schedules_to_tell_again_idx",
    job_schedules.c.mirrored_until,
    job_schedules.c.tenant,
    postgresql_where=job_schedules.c.mirrored_until.is_not(None),
)
sa.Index(
    "job_schedules_to_remove_idx",
    job_schedules.c.tenant,
    job_schedules.c.schedule_id,
    postgresql_where=sa.text(
        "mirrored_version IS NOT NULL AND (deleted_at IS NOT NULL OR engine <> 'temporal')"
    ),
)
sa.Index(
    "job_schedules_overdue_idx",
    job_schedules.c.next_fire_at,
    job_schedules.c.tenant,
    postgresql_where=sa.text("engine = 'temporal' AND deleted_at IS NULL AND NOT paused"),
)

# History, and what keeps two schedulers from firing twice: who inserts the row makes the job.
job_schedule_fires = sa.Table(
    "job_schedule_fires",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("schedule_id", sa.Uuid, nullable=False),
    sa.Column(
        "fire_at", sa.DateTime(timezone=True), nullable=False
    ),  # nominal; of a manual run, when it was asked for
    sa.Column("trigger", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("job_id", sa.Uuid),
    sa.Column("reason", sa.Text),
    sa.Column(
        "missed_until", sa.DateTime(timezone=True)
    ),  # with `missed`: this fire and all before that instant
    sa.Column("fired_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.PrimaryKeyConstraint("tenant", "schedule_id", "fire_at", name="job_schedule_fires_pkey"),
    sa.CheckConstraint(_one_of("trigger", Trigger), name="job_schedule_fires_trigger_check"),
    sa.CheckConstraint(_one_of("outcome", FireOutcome), name="job_schedule_fires_outcome_check"),
)

# The pruner deletes the oldest.
sa.Index("job_schedule_fires_age_idx", job_schedule_fires.c.fired_at, job_schedule_fires.c.tenant)

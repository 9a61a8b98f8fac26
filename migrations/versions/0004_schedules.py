"""Schedules and their fires."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0004_schedules"
down_revision = "0003_singletons"
branch_labels = None
depends_on = None

#: Whose names are put together below.
makes = [f"public.job_schedules_{name}_idx" for name in ("to_tell", "to_tell_again", "to_remove", "overdue")]


def upgrade() -> None:
    _create_schedules()
    _create_fires()


def downgrade() -> None:
    op.drop_table("job_schedule_fires")
    op.drop_table("job_schedules")


def _instant(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _instant_now(name: str) -> sa.Column[object]:
    now = sa.text("clock_timestamp()")
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=now)


def _create_schedules() -> None:
    op.create_table(
        "job_schedules",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("schedule_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("args", sa.JSON, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("kwargs", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("options", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("zone", sa.Text, nullable=False, server_default=sa.text("'UTC'")),
        sa.Column("overlap", sa.Text, nullable=False),
        sa.Column("catchup_seconds", sa.Integer, nullable=False),
        sa.Column("jitter_seconds", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("queue", sa.Text),
        sa.Column("priority", sa.SmallInteger),
        sa.Column("user_id", sa.Uuid),
        sa.Column("declared_by", sa.Text),
        sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("note", sa.Text),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
        _instant("next_fire_at"),
        _instant("due_at"),
        _instant("buffered_fire_at"),
        _instant("last_fire_at"),
        sa.Column("last_job_id", sa.Uuid),
        sa.Column("open_jobs", ARRAY(sa.Uuid), nullable=False, server_default=sa.text("'{}'")),
        sa.Column("mirrored_version", sa.Integer),
        _instant("mirrored_until"),
        sa.Column("mirror_error", sa.Text),
        _instant_now("created_at"),
        _instant_now("updated_at"),
        _instant("deleted_at"),
        sa.PrimaryKeyConstraint("tenant", "schedule_id", name="job_schedules_pkey"),
        sa.UniqueConstraint("tenant", "name", name="job_schedules_name_key"),
        sa.CheckConstraint("kind IN ('cron', 'every', 'once')", name="job_schedules_kind_check"),
        sa.CheckConstraint(
            "overlap IN ('skip', 'allow', 'buffer_one', 'cancel_other')", name="job_schedules_overlap_check"
        ),
        postgresql_with={
            "fillfactor": 70,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_vacuum_threshold": 1000,
        },
    )
    op.create_index(
        "job_schedules_due_idx",
        "job_schedules",
        ["due_at", "tenant"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    _create_mirror_indexes()


def _create_mirror_indexes() -> None:
    for name, columns, where in (
        (
            "to_tell",
            ["tenant", "schedule_id"],
            "engine = 'temporal' AND deleted_at IS NULL AND mirrored_version IS DISTINCT FROM version",
        ),
        ("to_tell_again", ["mirrored_until", "tenant"], "mirrored_until IS NOT NULL"),
        (
            "to_remove",
            ["tenant", "schedule_id"],
            "mirrored_version IS NOT NULL AND (deleted_at IS NOT NULL OR engine <> 'temporal')",
        ),
        ("overdue", ["next_fire_at", "tenant"], "engine = 'temporal' AND deleted_at IS NULL AND NOT paused"),
    ):
        op.create_index(
            f"job_schedules_{name}_idx", "job_schedules", columns, postgresql_where=sa.text(where)
        )


def _create_fires() -> None:
    op.create_table(
        "job_schedule_fires",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("schedule_id", sa.Uuid, nullable=False),
        sa.Column("fire_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid),
        sa.Column("reason", sa.Text),
        _instant("missed_until"),
        _instant_now("fired_at"),
        sa.PrimaryKeyConstraint("tenant", "schedule_id", "fire_at", name="job_schedule_fires_pkey"),
        sa.CheckConstraint(
            "trigger IN ('schedule', 'manual', 'backfill')", name="job_schedule_fires_trigger_check"
        ),
        sa.CheckConstraint(
            "outcome IN ('enqueued', 'buffered', 'skipped', 'missed', 'failed')",
            name="job_schedule_fires_outcome_check",
        ),
    )
    op.create_index("job_schedule_fires_age_idx", "job_schedule_fires", ["fired_at", "tenant"])

"""Parents and their children."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007_families"
down_revision = "0006_tenants"
branch_labels = None
depends_on = None

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}
_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "job_families",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Uuid, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("options", JSONB, nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("total", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("unfinished", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("running", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("attempt", sa.Integer),
        sa.Column("resumption", sa.Text),
        sa.Column("step_id", sa.Uuid),
        sa.Column("told_at", sa.DateTime(timezone=True)),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("tenant", "parent_id", name="job_families_pkey"),
        postgresql_with=_UPDATED_OFTEN,
    )
    op.create_index(
        "job_families_open_idx",
        "job_families",
        ["tenant", "parent_id"],
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "job_family_members",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("child_id", sa.Uuid, nullable=False),
        sa.Column("parent_tenant", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Uuid, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("item_key", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("tenant", "child_id", name="job_family_members_pkey"),
        postgresql_with=_UPDATED_OFTEN,
    )
    op.create_index(
        "job_family_members_order_idx",
        "job_family_members",
        ["parent_tenant", "parent_id", "status", "position", "tenant"],
    )


def downgrade() -> None:
    op.drop_table("job_family_members")
    op.drop_table("job_families")

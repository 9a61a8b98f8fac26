"""Singleton keys, and an index for the jobs that fell back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_singletons"
down_revision = "0002_broker"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_singletons",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column(
            "taken_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("tenant", "key", name="job_singletons_pkey"),
        postgresql_with={
            "fillfactor": 70,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_vacuum_threshold": 1000,
        },
    )
    op.create_index(
        "job_details_fallback_idx",
        "job_details",
        ["created_at", "tenant"],
        postgresql_where=sa.text("step_name = 'fallback'"),
    )


def downgrade() -> None:
    op.drop_index("job_details_fallback_idx", table_name="job_details")
    op.drop_table("job_singletons")

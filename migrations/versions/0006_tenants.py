"""Suspended tenants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_tenants"
down_revision = "0005_services"
branch_labels = None
depends_on = None

#: In a condition that holds for tenants of any type: a cast would be dropped where it changes nothing.
SYSTEM = "00000000-0000-0000-0000-000000000000"


def upgrade() -> None:
    op.create_table(
        "job_suspensions",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("suspended_by", sa.Text),
        sa.Column(
            "suspended_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")
        ),
        sa.PrimaryKeyConstraint("tenant", name="job_suspensions_pkey"),
        sa.CheckConstraint(f"concat(tenant) <> '{SYSTEM}'", name="job_suspensions_not_system_check"),
    )


def downgrade() -> None:
    op.drop_table("job_suspensions")

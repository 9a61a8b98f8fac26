"""Queues that are paused: workers take nothing new from them. See `jobbridge.store.workers.queue_pauses`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011_queue_pauses"
down_revision = "0010_live"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_queue_pauses",
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("paused_by", sa.Text),
        sa.Column("note", sa.Text),
        sa.PrimaryKeyConstraint("queue", name="job_queue_pauses_pkey"),
    )


def downgrade() -> None:
    op.drop_table("job_queue_pauses")

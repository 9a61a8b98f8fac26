"""Queues that are paused."""

from __future__ import annotations

revision = "0011_queue_pauses"
down_revision = "0010_live"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass

"""Schedules and their fires."""

from __future__ import annotations

revision = "0004_schedules"
down_revision = "0003_singletons"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass

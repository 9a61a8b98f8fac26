"""What changes in jobs, for those who watch."""

from __future__ import annotations

revision = "0010_live"
down_revision = "0009_access"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass

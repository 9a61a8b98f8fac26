"""Jobs and their children."""

from __future__ import annotations

revision = "0007_families"
down_revision = "0006_tenants"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass

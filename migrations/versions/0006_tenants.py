"""Suspended tenants, and row-level security."""

from __future__ import annotations

revision = "0006_tenants"
down_revision = "0005_services"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass

"""Workers' presence, and the services' last runs."""

from __future__ import annotations

revision = "0005_services"
down_revision = "0004_schedules"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass

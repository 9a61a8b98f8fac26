"""Room beside each message for the version of it that is leased: then a lease does not write the message again."""

from __future__ import annotations

from alembic import op

revision = "0018_lease_in_place"
down_revision = "0017_releases"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # how full a page is made concerns nobody


def upgrade() -> None:
    op.execute("ALTER TABLE jobbridge_broker.messages SET (fillfactor = 50)")


def downgrade() -> None:
    op.execute("ALTER TABLE jobbridge_broker.messages RESET (fillfactor)")

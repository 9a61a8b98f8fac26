"""The jobs that there were before 0008 are counted, too, and what of them started and ended within the last month.

Some seconds for a million, and nobody waits for it.
"""

from __future__ import annotations

from alembic import op

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.counts.flow_history import record_history
from jobbridge.store.counts.recount import recount

revision = "0012_existing_counts"
down_revision = "0011_queue_pauses"
branch_labels = None
depends_on = None


def upgrade() -> None:
    driver: DriverConnection = op.get_bind().connection.driver_connection  # type: ignore[assignment]  # psycopg's
    recount(driver)
    record_history(driver)


def downgrade() -> None:
    """The counts are right, and go with their tables."""

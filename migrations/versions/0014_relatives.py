"""Which jobs belong together, by an index: those of a chain, and those of a group. Neither column changes (decision 3).

Only jobs that others have sent, or that are of a group, are in them: a job alone costs nothing.
"""

from __future__ import annotations

from alembic import op

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.schema.online import create_indexes

revision = "0014_relatives"
down_revision = "0013_bulk_writes"
branch_labels = None
depends_on = None

_INDEXES = {
    "jobs_root_idx": "(tenant, root_id, created_at, job_id) WHERE root_id <> job_id",
    "jobs_group_idx": "(tenant, group_id, created_at, job_id) WHERE group_id IS NOT NULL",
}


def upgrade() -> None:
    """While everybody writes: the table may be large."""
    driver: DriverConnection = op.get_bind().connection.driver_connection  # type: ignore[assignment]  # psycopg's
    statements = {
        name: f"CREATE INDEX CONCURRENTLY {name} ON public.jobs {what}" for name, what in _INDEXES.items()
    }
    with op.get_context().autocommit_block():
        create_indexes(driver, "jobs", statements)


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(name, table_name="jobs")

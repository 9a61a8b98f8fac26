"""Singleton keys, and an index for the jobs that fell back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.schema import adopt as adopting
from jobbridge.store.schema.online import create_indexes

revision = "0003_singletons"
down_revision = "0002_broker"
branch_labels = None
depends_on = None


FALLBACKS = "ON public.job_details (created_at, tenant) WHERE step_name = 'fallback'"


def upgrade() -> None:
    _create_fallback_index()
    op.create_table(
        "job_singletons",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column(
            "taken_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("tenant", "key", name="job_singletons_pkey"),
        postgresql_with={
            "fillfactor": 70,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_vacuum_threshold": 1000,
        },
    )


def _create_fallback_index() -> None:
    """On a table that was the original's, and may be large, without keeping anybody from writing."""
    driver: DriverConnection = op.get_bind().connection.driver_connection  # type: ignore[assignment]  # psycopg's
    if not adopting.was_adopted(driver):
        op.execute(f"CREATE INDEX job_details_fallback_idx {FALLBACKS}")
        return
    with op.get_context().autocommit_block():
        statement = f"CREATE INDEX CONCURRENTLY job_details_fallback_idx {FALLBACKS}"
        create_indexes(driver, "job_details", {"job_details_fallback_idx": statement})


def downgrade() -> None:
    op.drop_index("job_details_fallback_idx", table_name="job_details")
    op.drop_table("job_singletons")

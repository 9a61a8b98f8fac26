"""What waits for the parts of a chord: a row that counts them, whatever becomes of each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.schema.online import create_indexes

revision = "0019_chords"
down_revision = "0018_lease_in_place"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # nullable columns, and a table that the releases before do not know

_NOW = sa.text("clock_timestamp()")
_INDEX = "(chord_id, tenant, chord_index) WHERE chord_id IS NOT NULL"


def upgrade() -> None:
    op.create_table(
        "job_chords",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("chord_id", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("body_type", sa.Text, nullable=False),
        sa.Column("header", sa.LargeBinary),
        sa.Column("size", sa.Integer),
        sa.Column("added", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("counted", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("broken_by", sa.Uuid),
        sa.Column("lifetime", sa.Interval),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("tenant", "chord_id", name="job_chords_pkey"),
        if_not_exists=True,
        postgresql_with={
            "fillfactor": 70,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_vacuum_threshold": 1000,
        },
    )
    driver: DriverConnection = op.get_bind().connection.driver_connection  # type: ignore[assignment]  # psycopg's
    op.execute("ALTER TABLE public.jobs ADD COLUMN IF NOT EXISTS chord_id text")
    op.execute("ALTER TABLE public.jobs ADD COLUMN IF NOT EXISTS chord_index integer")
    with op.get_context().autocommit_block():
        create_indexes(
            driver,
            "jobs",
            {"jobs_chord_idx": f"CREATE INDEX CONCURRENTLY jobs_chord_idx ON public.jobs {_INDEX}"},
        )


def downgrade() -> None:
    op.drop_index("jobs_chord_idx", table_name="jobs")
    op.drop_column("jobs", "chord_index")
    op.drop_column("jobs", "chord_id")
    op.drop_table("job_chords")

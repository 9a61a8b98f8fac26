"""Batches: a mark on their jobs, and a row that says what follows when all have ended (decision 0034)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.schema.online import create_indexes, drop_indexes

revision = "0030_batches"
down_revision = "0029_rules"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # nullable columns, and a table that the releases before do not know

_NOW = sa.text("clock_timestamp()")
_INDEXES = {
    "jobs_batch_idx": "(batch_id, created_at, job_id, tenant) WHERE batch_id IS NOT NULL",
    "jobs_batch_open_idx": "(batch_id, tenant) WHERE batch_id IS NOT NULL AND completed_at IS NULL",
}

#: As its owner, with qualified names: see 0008. A job that is there already goes on, whatever its batch is.
_FUNCTION = """
CREATE OR REPLACE FUNCTION public.jobbridge_join_batch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    new.batch_id := (new.metadata ->> 'jobbridge_batch')::uuid;
    PERFORM FROM public.job_batches AS batch
    WHERE batch.batch_id = new.batch_id AND batch.state IN ('open', 'sealed')
    FOR SHARE;
    IF NOT FOUND AND NOT EXISTS (
        SELECT FROM public.jobs WHERE jobs.job_id = new.job_id AND jobs.batch_id = new.batch_id
    ) THEN
        RAISE EXCEPTION 'The batch % has ended, and takes no more jobs.', new.batch_id
            USING ERRCODE = '22023', HINT = 'Make a new one: with jobbridge.batch(...).';
    END IF;
    RETURN new;
END
$$
"""
_TRIGGER = """
CREATE OR REPLACE TRIGGER jobbridge_join_batch BEFORE INSERT ON public.jobs
FOR EACH ROW WHEN (new.metadata ? 'jobbridge_batch') EXECUTE FUNCTION public.jobbridge_join_batch()
"""


def upgrade() -> None:
    """While everybody writes: each step can be taken again."""
    op.create_table(
        "job_batches",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'open'")),
        sa.Column("callbacks", sa.LargeBinary),
        sa.Column("callbacks_type", sa.Text),
        sa.Column("counts", JSONB),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("sealed_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("batch_id", "tenant", name="job_batches_pkey"),
        sa.CheckConstraint(
            "state IN ('open', 'sealed', 'completed', 'failed', 'cancelled')", name="job_batches_state_check"
        ),
        if_not_exists=True,
        postgresql_with={
            "fillfactor": 70,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_vacuum_threshold": 1000,
        },
    )
    op.execute(
        "CREATE INDEX IF NOT EXISTS job_batches_newest_idx ON public.job_batches (created_at, batch_id, tenant)"
    )
    op.execute(
        "CREATE INDEX IF NOT EXISTS job_batches_waiting_idx ON public.job_batches (created_at, tenant)"
        " WHERE state IN ('open', 'sealed') OR (state = 'cancelled' AND ended_at IS NULL)"
    )
    op.execute("ALTER TABLE public.jobs ADD COLUMN IF NOT EXISTS batch_id uuid")
    op.execute("ALTER TABLE public.job_chords ADD COLUMN IF NOT EXISTS batch_id uuid")
    op.execute(
        "CREATE INDEX IF NOT EXISTS job_chords_batch_idx ON public.job_chords (batch_id, tenant)"
        " WHERE batch_id IS NOT NULL"
    )
    op.execute(_FUNCTION)
    op.execute("REVOKE ALL ON FUNCTION public.jobbridge_join_batch() FROM PUBLIC")
    op.execute(_TRIGGER)
    with op.get_context().autocommit_block():
        create_indexes(
            _driver(),
            "jobs",
            {
                name: f"CREATE INDEX CONCURRENTLY {name} ON public.jobs {columns}"
                for name, columns in _INDEXES.items()
            },
        )


def downgrade() -> None:
    op.execute("DROP TRIGGER IF EXISTS jobbridge_join_batch ON public.jobs")
    op.execute("DROP FUNCTION IF EXISTS public.jobbridge_join_batch()")
    with op.get_context().autocommit_block():
        drop_indexes(_driver(), list(_INDEXES))
    op.drop_index("job_chords_batch_idx", table_name="job_chords")
    op.drop_column("job_chords", "batch_id")
    op.drop_column("jobs", "batch_id")
    op.drop_table("job_batches")


def _driver() -> DriverConnection:
    driver: DriverConnection = op.get_bind().connection.driver_connection  # type: ignore[assignment]  # psycopg's
    return driver

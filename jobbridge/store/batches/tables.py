"""The table of batches; their jobs carry the id (`jobs.batch_id`), and so do chords in them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.store.jobs.tables import metadata

_NOW = sa.text("clock_timestamp()")

job_batches = sa.Table(
    "job_batches",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("batch_id", sa.Uuid, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'open'")),
    sa.Column("callbacks", sa.LargeBinary),  # signatures by name; null once nothing can follow any more
    sa.Column("callbacks_type", sa.Text),  # content type and encoding
    sa.Column("counts", JSONB),  # jobs by status, when it ended
    sa.Column("reason", sa.Text),  # why it was cancelled
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("sealed_at", sa.DateTime(timezone=True)),
    sa.Column("ended_at", sa.DateTime(timezone=True)),  # of a cancelled one: all of its jobs have
    # In this order: who has an id knows no tenant.
    sa.PrimaryKeyConstraint("batch_id", "tenant", name="job_batches_pkey"),
    sa.CheckConstraint(
        "state IN ('open', 'sealed', 'completed', 'failed', 'cancelled')", name="job_batches_state_check"
    ),
    postgresql_with={
        "fillfactor": 70,
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_vacuum_threshold": 1000,
    },
)
sa.Index("job_batches_newest_idx", job_batches.c.created_at, job_batches.c.batch_id, job_batches.c.tenant)
sa.Index(
    "job_batches_waiting_idx",
    job_batches.c.created_at,
    job_batches.c.tenant,
    postgresql_where=sa.text("state IN ('open', 'sealed') OR (state = 'cancelled' AND ended_at IS NULL)"),
)

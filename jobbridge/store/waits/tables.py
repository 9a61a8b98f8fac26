"""What jobs wait for, and the events that come for them.

A row of `job_waits` is there while a job waits; it says which step the event completes. `job_inbox` has every event:
those that nobody waited for yet, and those that were delivered, so that none is delivered twice.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.store.jobs.tables import metadata

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}
_NOW = sa.text("clock_timestamp()")

job_waits = sa.Table(
    "job_waits",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # sleep, event or call
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("key", sa.Text),
    sa.Column("until", sa.DateTime(timezone=True)),  # null: for ever
    sa.Column(
        "pending", sa.Integer, nullable=False, server_default=sa.text("0")
    ),  # called jobs that have not ended
    sa.Column("step", sa.Uuid, nullable=False),  # in job_details
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.PrimaryKeyConstraint("tenant", "job_id", name="job_waits_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

sa.Index(
    "job_waits_key_idx",
    job_waits.c.tenant,
    job_waits.c.name,
    job_waits.c.key,
    job_waits.c.created_at,
    postgresql_where=job_waits.c.key.is_not(None),
)

job_inbox = sa.Table(
    "job_inbox",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("event_id", sa.Uuid, nullable=False),
    sa.Column("job_id", sa.Uuid),  # for this job; or:
    sa.Column("key", sa.Text),  # for whoever waits for it
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("payload", JSONB),
    sa.Column("once", sa.Text),  # the sender's own id of it
    sa.Column("sent_by", sa.Text),
    sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("consumed_at", sa.DateTime(timezone=True)),
    sa.Column("consumed_by", sa.Uuid),
    sa.PrimaryKeyConstraint("tenant", "event_id", name="job_inbox_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

sa.Index(
    "job_inbox_once_key",
    job_inbox.c.tenant,
    job_inbox.c.name,
    job_inbox.c.once,
    unique=True,
    postgresql_where=job_inbox.c.once.is_not(None),
)
sa.Index(
    "job_inbox_job_idx",
    job_inbox.c.tenant,
    job_inbox.c.job_id,
    job_inbox.c.name,
    job_inbox.c.sent_at,
    postgresql_where=job_inbox.c.job_id.is_not(None),
)
sa.Index(
    "job_inbox_key_idx",
    job_inbox.c.tenant,
    job_inbox.c.key,
    job_inbox.c.name,
    job_inbox.c.sent_at,
    postgresql_where=sa.text("key IS NOT NULL AND consumed_at IS NULL"),
)
sa.Index(
    "job_inbox_consumer_idx",
    job_inbox.c.tenant,
    job_inbox.c.consumed_by,
    postgresql_where=job_inbox.c.consumed_by.is_not(None),
)
sa.Index(
    "job_inbox_kept_idx",
    job_inbox.c.sent_at,
    job_inbox.c.tenant,
    postgresql_where=job_inbox.c.consumed_at.is_(None),
)

"""The tables of the workers, of what they leave alone, and of the services that look after the jobs.

`job_workers`, `job_queue_pauses` and `job_services` belong to the installation, not to tenants: like the broker's
tables they stay where they are when the others are distributed, and nothing joins them with `jobs`.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from jobbridge.store.jobs.tables import metadata

_NOW = sa.text("now()")

# One row per running worker process. Whether it lives is told by `jobbridge.postgres.presence`, not by `seen_at`.
job_workers = sa.Table(
    "job_workers",
    metadata,
    sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("queues", ARRAY(sa.Text), nullable=False),
    sa.Column("tasks", ARRAY(sa.Text), nullable=False),
    sa.Column("sends_to", sa.Text, nullable=False),  # the engine of messages that name none, by its settings
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("release", sa.Text),  # NULL: 0.1.0
    sa.Column("knows", sa.Text),  # the newest revision of the tables that its release knows
    sa.PrimaryKeyConstraint("number", name="job_workers_pkey"),
    info={"is_local": True},
)

# Workers that ended themselves because their loop had died or hung; kept for a day.
job_stuck_workers = sa.Table(
    "job_stuck_workers",
    metadata,
    sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.PrimaryKeyConstraint("number", name="job_stuck_workers_pkey"),
    info={"is_local": True},
)

# Queues from which no worker takes anything new, on either engine.
job_queue_pauses = sa.Table(
    "job_queue_pauses",
    metadata,
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("paused_by", sa.Text),
    sa.Column("note", sa.Text),
    sa.PrimaryKeyConstraint("queue", name="job_queue_pauses_pkey"),
    info={"is_local": True},
)

# The last run of each service.
job_services = sa.Table(
    "job_services",
    metadata,
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("last_started", sa.DateTime(timezone=True)),
    sa.Column("last_finished", sa.DateTime(timezone=True)),
    sa.Column("last_error", sa.Text),
    sa.Column("failed_at", sa.DateTime(timezone=True)),
    sa.Column("counters", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.PrimaryKeyConstraint("name", name="job_services_pkey"),
    info={"is_local": True},
)

# How long a tenant's jobs of a status are kept, where that differs from the settings. No `keep`: for ever.
job_retention = sa.Table(
    "job_retention",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("keep", sa.Interval),
    sa.PrimaryKeyConstraint("tenant", "status", name="job_retention_pkey"),
)

"""The tables of the workers, of what they leave alone, and of the services that look after the jobs.

`job_workers`, `job_queue_pauses` and `job_services` belong to the installation, not to tenants: like the broker's
tables they stay where they are when the others are distributed, and nothing joins them with `jobs`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    Interval,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from jobbridge.store.jobs.tables import metadata

_NOW = text("now()")

# One row per running worker process. Whether it lives is told by `jobbridge.postgres.presence`, not by `seen_at`.
job_workers = Table(
    "job_workers",
    metadata,
    Column("number", BigInteger, nullable=False, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    Column("tasks", ARRAY(Text), nullable=False),
    Column("sends_to", Text, nullable=False),  # the engine of messages that name none, by its settings
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("release", Text),  # NULL: 0.1.0
    Column("knows", Text),  # the newest revision of the tables that its release knows
    PrimaryKeyConstraint("number", name="job_workers_pkey"),
    info={"is_local": True},
)

# Workers that ended themselves because their loop had died or hung; kept for a day.
job_stuck_workers = Table(
    "job_stuck_workers",
    metadata,
    Column("number", BigInteger, nullable=False, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("noted_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("number", name="job_stuck_workers_pkey"),
    info={"is_local": True},
)

# Queues from which no worker takes anything new, on either engine.
job_queue_pauses = Table(
    "job_queue_pauses",
    metadata,
    Column("queue", Text, nullable=False),
    Column("paused_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("paused_by", Text),
    Column("note", Text),
    PrimaryKeyConstraint("queue", name="job_queue_pauses_pkey"),
    info={"is_local": True},
)

# The last run of each service.
job_services = Table(
    "job_services",
    metadata,
    Column("name", Text, nullable=False),
    Column("holder", Text),
    Column("last_started", DateTime(timezone=True)),
    Column("last_finished", DateTime(timezone=True)),
    Column("last_error", Text),
    Column("failed_at", DateTime(timezone=True)),
    Column("counters", JSONB, nullable=False, server_default=text("'{}'")),
    PrimaryKeyConstraint("name", name="job_services_pkey"),
    info={"is_local": True},
)

# How long a tenant's jobs of a status are kept, where that differs from the settings. No `keep`: for ever.
job_retention = Table(
    "job_retention",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("keep", Interval),
    PrimaryKeyConstraint("tenant", "status", name="job_retention_pkey"),
)

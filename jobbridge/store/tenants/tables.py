"""The table of suspended tenants: a row while a tenant's jobs must not run. Nobody can suspend the system's."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, PrimaryKeyConstraint, Table, Text, text

from jobbridge.core.keys import SYSTEM_TENANT
from jobbridge.store.jobs.tables import metadata

job_suspensions = Table(
    "job_suspensions",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("reason", Text),
    Column("suspended_by", Text),
    Column("suspended_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant", name="job_suspensions_pkey"),
    CheckConstraint(f"concat(tenant) <> '{SYSTEM_TENANT}'", name="job_suspensions_not_system_check"),
)

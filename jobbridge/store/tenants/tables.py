"""The table of suspended tenants: a row while a tenant's jobs must not run. Nobody can suspend the system's."""

from __future__ import annotations

import sqlalchemy as sa

from jobbridge.core.keys import SYSTEM_TENANT
from jobbridge.store.jobs.tables import metadata

job_suspensions = sa.Table(
    "job_suspensions",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("suspended_by", sa.Text),
    sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    sa.PrimaryKeyConstraint("tenant", name="job_suspensions_pkey"),
    sa.CheckConstraint(f"concat(tenant) <> '{SYSTEM_TENANT}'", name="job_suspensions_not_system_check"),
)

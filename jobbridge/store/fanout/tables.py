"""The tables of parents and children, beside those of the jobs themselves.

`job_families` has one row for each parent, with the numbers by which is decided what happens next; `job_family_members`
has one for each child, from before it is a job. Both are touched only for jobs that belong to a fan-out.

Members are keyed by the child's own tenant, as its job is, so that the end of a job finds its member there. The fan-out
is its parent's tenant's; no foreign key ties them.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.store.jobs.tables import metadata

_UPDATED_OFTEN = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}

job_families = Table(
    "job_families",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("parent_id", Uuid, nullable=False),
    Column("task", Text, nullable=False),  # of the children
    Column("options", JSONB, nullable=False),  # by which they are sent
    Column("concurrency", Integer, nullable=False),
    Column("generation", Integer, nullable=False, server_default=text("1")),
    Column("total", Integer, nullable=False, server_default=text("0")),
    Column("unfinished", Integer, nullable=False, server_default=text("0")),
    Column("running", Integer, nullable=False, server_default=text("0")),
    Column("attempt", Integer),  # of the parent, that waits; None: it has not started
    Column("resumption", Text),  # the message by which the parent goes on
    Column("step_id", Uuid),  # in job_details
    Column("told_at", DateTime(timezone=True)),  # the parent's progress
    Column("closed_at", DateTime(timezone=True)),  # nothing is left to do
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    PrimaryKeyConstraint("tenant", "parent_id", name="job_families_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

Index(
    "job_families_open_idx",
    job_families.c.tenant,
    job_families.c.parent_id,
    postgresql_where=job_families.c.closed_at.is_(None),
)

job_family_members = Table(
    "job_family_members",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("child_id", Uuid, nullable=False),
    Column("parent_tenant", Text, nullable=False),
    Column("parent_id", Uuid, nullable=False),
    Column("position", Integer, nullable=False),
    Column("item_key", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("arguments", Text, nullable=False),  # JSON
    Column("status", Text, nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant", "child_id", name="job_family_members_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

# Of one fan-out in their order; with `status`, so that those which wait are found among 100,000.
Index(
    "job_family_members_order_idx",
    job_family_members.c.parent_tenant,
    job_family_members.c.parent_id,
    job_family_members.c.status,
    job_family_members.c.position,
    job_family_members.c.tenant,
)

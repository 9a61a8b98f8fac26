"""The tables of parents and children, beside those of the jobs themselves.

`job_families` has one row for each parent, with the numbers by which is decided what happens next; `job_family_members`
has one for each child, from before it is a job. Both are touched only for jobs that belong to a fan-out.

Members are keyed by the child's own tenant, as its job is, so that the end of a job finds its member there. The fan-out
is its parent's tenant's; no foreign key ties them.
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

job_families = sa.Table(
    "job_families",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("parent_id", sa.Uuid, nullable=False),
    sa.Column("task", sa.Text, nullable=False),  # of the children
    sa.Column("options", JSONB, nullable=False),  # by which they are sent
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False, server_default=sa.text("1")),
    sa.Column("total", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("unfinished", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("running", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("attempt", sa.Integer),  # of the parent, that waits; None: it has not started
    sa.Column("resumption", sa.Text),  # the message by which the parent goes on
    sa.Column("step_id", sa.Uuid),  # in job_details
    sa.Column("told_at", sa.DateTime(timezone=True)),  # the parent's progress
    sa.Column("closed_at", sa.DateTime(timezone=True)),  # nothing is left to do
    sa.Column(
        "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
    ),
    sa.Column(
        "updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
    ),
    sa.PrimaryKeyConstraint("tenant", "parent_id", name="job_families_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

sa.Index(
    "job_families_open_idx",
    job_families.c.tenant,
    job_families.c.parent_id,
    postgresql_where=job_families.c.closed_at.is_(None),
)

job_family_members = sa.Table(
    "job_family_members",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("child_id", sa.Uuid, nullable=False),
    sa.Column("parent_tenant", sa.Text, nullable=False),
    sa.Column("parent_id", sa.Uuid, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("item_key", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("arguments", sa.Text, nullable=False),  # JSON
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.PrimaryKeyConstraint("tenant", "child_id", name="job_family_members_pkey"),
    postgresql_with=_UPDATED_OFTEN,
)

# Of one fan-out in their order; with `status`, so that those which wait are found among 100,000.
sa.Index(
    "job_family_members_order_idx",
    job_family_members.c.parent_tenant,
    job_family_members.c.parent_id,
    job_family_members.c.status,
    job_family_members.c.position,
    job_family_members.c.tenant,
)

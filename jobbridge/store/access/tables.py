"""The tables of who may use the monitor, of what they did, of links for customers, and of keys of API requests.

They belong to the installation, not to tenants: they stay where they are when the others are distributed, and a purged
tenant's actions stay on record. `of_tenant` is no key.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.core.access import Role
from jobbridge.store.jobs.tables import metadata

_NOW = sa.text("now()")
_ROLES = ", ".join(f"'{role}'" for role in Role)

# The token itself is nowhere: only its hash is.
job_tokens = sa.Table(
    "job_tokens",
    metadata,
    sa.Column("token_id", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("of_tenant", sa.Text),  # null: all tenants
    sa.Column("created_by", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("used_at", sa.DateTime(timezone=True)),
    sa.Column("revoked_at", sa.DateTime(timezone=True)),
    sa.PrimaryKeyConstraint("token_id", name="job_tokens_pkey"),
    sa.UniqueConstraint("hash", name="job_tokens_hash_key"),
    sa.CheckConstraint(f"role IN ({_ROLES})", name="job_tokens_role_check"),
    info={"is_local": True},
)

# A name is free again once its token is revoked.
sa.Index(
    "job_tokens_name_idx",
    job_tokens.c.name,
    unique=True,
    postgresql_where=job_tokens.c.revoked_at.is_(None),
)

# One row for each action of somebody, also one that was refused.
job_audit = sa.Table(
    "job_audit",
    metadata,
    sa.Column("audit_id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("role", sa.Text),
    sa.Column("token_id", sa.Uuid),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("of_tenant", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("details", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.PrimaryKeyConstraint("audit_id", name="job_audit_pkey"),
    info={"is_local": True},
)

sa.Index("job_audit_tenant_idx", job_audit.c.of_tenant, job_audit.c.audit_id)

# What shows one job's state to whoever has the link; as with tokens, only the hash is stored. Revoking deletes the row.
job_links = sa.Table(
    "job_links",
    metadata,
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("of_tenant", sa.Text, nullable=False),
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint("hash", name="job_links_pkey"),
    info={"is_local": True},
)

sa.Index("job_links_job_idx", job_links.c.job_id)
sa.Index("job_links_expiry_idx", job_links.c.expires_at)

# The idempotency keys of the API. `scope` is the tenant that a token is bound to, or empty; a job's tenant is in
# `of_tenant`. The row is written in the transaction that makes the job.
job_requests = sa.Table(
    "job_requests",
    metadata,
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("of_tenant", sa.Text),
    sa.Column("job_id", sa.Uuid),
    sa.Column("made_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.PrimaryKeyConstraint("scope", "key", name="job_requests_pkey"),
    info={"is_local": True},
)

sa.Index("job_requests_age_idx", job_requests.c.made_at)

# Sessions that were ended before their time. A session itself is in its cookie alone.
job_signouts = sa.Table(
    "job_signouts",
    metadata,
    sa.Column("session", sa.LargeBinary, nullable=False),
    sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint("session", name="job_signouts_pkey"),
    info={"is_local": True},
)

# What 0.1.0 signs forms with, as long as it runs beside this release; nothing reads it here, and nothing believes it.
job_secrets = sa.Table(
    "job_secrets",
    metadata,
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("name", name="job_secrets_pkey"),
    info={"is_local": True},
)

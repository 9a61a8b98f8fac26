"""The tables of who may use the monitor, of what they did, of links for customers, and of keys of API requests.

They belong to the installation, not to tenants: they stay where they are when the others are distributed, and a purged
tenant's actions stay on record. `of_tenant` is no key.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.core.access import Role
from jobbridge.store.jobs.tables import metadata

_NOW = text("now()")
_ROLES = ", ".join(f"'{role}'" for role in Role)

# The token itself is nowhere: only its hash is.
job_tokens = Table(
    "job_tokens",
    metadata,
    Column("token_id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    Column("of_tenant", Text),  # null: all tenants
    Column("created_by", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("expires_at", DateTime(timezone=True)),
    Column("used_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("token_id", name="job_tokens_pkey"),
    UniqueConstraint("hash", name="job_tokens_hash_key"),
    CheckConstraint(f"role IN ({_ROLES})", name="job_tokens_role_check"),
    info={"is_local": True},
)

# A name is free again once its token is revoked.
Index(
    "job_tokens_name_idx",
    job_tokens.c.name,
    unique=True,
    postgresql_where=job_tokens.c.revoked_at.is_(None),
)

# One row for each action of somebody, also one that was refused.
job_audit = Table(
    "job_audit",
    metadata,
    Column("audit_id", BigInteger, Identity(always=True), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Column("actor", Text, nullable=False),
    Column("role", Text),
    Column("token_id", Uuid),
    Column("action", Text, nullable=False),
    Column("of_tenant", Text),
    Column("subject", Text),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    PrimaryKeyConstraint("audit_id", name="job_audit_pkey"),
    info={"is_local": True},
)

Index("job_audit_tenant_idx", job_audit.c.of_tenant, job_audit.c.audit_id)

# What shows one job's state to whoever has the link; as with tokens, only the hash is stored. Revoking deletes the row.
job_links = Table(
    "job_links",
    metadata,
    Column("hash", LargeBinary, nullable=False),
    Column("of_tenant", Text, nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("hash", name="job_links_pkey"),
    info={"is_local": True},
)

Index("job_links_job_idx", job_links.c.job_id)
Index("job_links_expiry_idx", job_links.c.expires_at)

# The idempotency keys of the API. `scope` is the tenant that a token is bound to, or empty; a job's tenant is in
# `of_tenant`. The row is written in the transaction that makes the job.
job_requests = Table(
    "job_requests",
    metadata,
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("of_tenant", Text),
    Column("job_id", Uuid),
    Column("made_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("scope", "key", name="job_requests_pkey"),
    info={"is_local": True},
)

Index("job_requests_age_idx", job_requests.c.made_at)

# Sessions that were ended before their time. A session itself is in its cookie alone.
job_signouts = Table(
    "job_signouts",
    metadata,
    Column("session", LargeBinary, nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("session", name="job_signouts_pkey"),
    info={"is_local": True},
)

# What all processes of an installation sign forms with, where there is no token to do it.
job_secrets = Table(
    "job_secrets",
    metadata,
    Column("name", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    PrimaryKeyConstraint("name", name="job_secrets_pkey"),
    info={"is_local": True},
)

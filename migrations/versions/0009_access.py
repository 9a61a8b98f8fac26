"""Tokens of those who may use the monitor, what they did, links for customers, and keys of API requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009_access"
down_revision = "0008_counts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_tokens",
        sa.Column("token_id", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")),
        _text("name"),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        _text("role"),
        _text("of_tenant", nullable=True),
        _text("created_by", nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        _instant("expires_at"),
        _instant("used_at"),
        _instant("revoked_at"),
        sa.PrimaryKeyConstraint("token_id", name="job_tokens_pkey"),
        sa.UniqueConstraint("hash", name="job_tokens_hash_key"),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="job_tokens_role_check"),
    )
    op.create_index(
        "job_tokens_name_idx",
        "job_tokens",
        ["name"],
        unique=True,
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "job_audit",
        sa.Column("audit_id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        _text("actor"),
        _text("role", nullable=True),
        sa.Column("token_id", sa.Uuid),
        _text("action"),
        _text("of_tenant", nullable=True),
        _text("subject", nullable=True),
        _text("outcome"),
        _text("reason", nullable=True),
        sa.Column("details", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.PrimaryKeyConstraint("audit_id", name="job_audit_pkey"),
    )
    op.create_index("job_audit_tenant_idx", "job_audit", ["of_tenant", "audit_id"])
    op.create_table(
        "job_links",
        sa.Column("hash", sa.LargeBinary, nullable=False),
        _text("of_tenant"),
        sa.Column("job_id", sa.Uuid, nullable=False),
        _text("created_by"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="job_links_pkey"),
    )
    op.create_index("job_links_job_idx", "job_links", ["job_id"])
    op.create_index("job_links_expiry_idx", "job_links", ["expires_at"])
    op.create_table(
        "job_requests",
        _text("scope"),
        _text("key"),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        _text("of_tenant", nullable=True),
        sa.Column("job_id", sa.Uuid),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("scope", "key", name="job_requests_pkey"),
    )
    op.create_index("job_requests_age_idx", "job_requests", ["made_at"])
    op.create_table(
        "job_signouts",
        sa.Column("session", sa.LargeBinary, nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session", name="job_signouts_pkey"),
    )
    op.create_table(
        "job_secrets",
        _text("name"),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="job_secrets_pkey"),
    )


def downgrade() -> None:
    op.drop_table("job_secrets")
    op.drop_table("job_signouts")
    op.drop_table("job_requests")
    op.drop_table("job_links")
    op.drop_table("job_audit")
    op.drop_table("job_tokens")


def _text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _instant(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True))

"""The job record: jobs, job_details, job_keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.errors import DatabaseError

revision = "0001_job_tables"
down_revision = None
branch_labels = ("core",)
depends_on = None

STATUSES = (
    "'pending', 'queued', 'scheduled', 'processing', 'retrying', "
    "'completed', 'failed', 'cancelled', 'expired', 'skipped'"
)
UPDATED_OFTEN = {
    "postgresql_with": {
        "fillfactor": 70,
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_vacuum_threshold": 1000,
    }
}


def upgrade() -> None:
    _refuse_foreign_tables()
    _create_jobs()
    _create_job_details()
    _create_job_keys()


def downgrade() -> None:
    op.drop_table("job_keys")
    op.drop_table("job_details")
    op.drop_table("jobs")


def _refuse_foreign_tables() -> None:
    for table in ("jobs", "job_details", "job_keys"):
        if sa.inspect(op.get_bind()).has_table(table, schema="public"):
            raise DatabaseError(
                f"The database already has a table public.{table} that jobbridge did not make.",
                hint="Give jobbridge a database of its own, or rename that table.",
            )


def _instant(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _instant_now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("user_id", sa.Uuid),
        sa.Column("runner_type", sa.Text, nullable=False),
        sa.Column("external_id", sa.Text),
        sa.Column("external_run_id", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        _instant("run_at"),
        _instant("expires_at"),
        sa.Column("singleton_key", sa.Text),
        sa.Column("root_id", sa.Uuid),
        sa.Column("parent_id", sa.Uuid),
        sa.Column("group_id", sa.Text),
        sa.Column("delivery", sa.Uuid),
        sa.Column("message", sa.Text),
        _instant("undelivered_since"),
        _instant("relayed_at"),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("max_attempts", sa.Integer),
        sa.Column("worker", sa.Text),
        sa.Column("progress", sa.REAL),
        sa.Column("progress_message", sa.Text),
        sa.Column("result", JSONB),
        sa.Column("result_payload", sa.LargeBinary),
        sa.Column("result_type", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("traceback", sa.Text),
        sa.Column("cancelled_by", sa.Text),
        sa.Column("cancel_reason", sa.Text),
        _instant_now("created_at"),
        _instant_now("updated_at"),
        _instant("started_at"),
        _instant("completed_at"),
        sa.PrimaryKeyConstraint("tenant", "job_id", name="jobs_pkey"),
        sa.CheckConstraint(f"status IN ({STATUSES})", name="jobs_status_check"),
        **UPDATED_OFTEN,
    )
    newest = [sa.text("created_at DESC"), sa.text("job_id DESC")]
    op.create_index("jobs_job_id_idx", "jobs", ["job_id", "tenant"])
    op.create_index(
        "jobs_external_id_idx",
        "jobs",
        ["external_id", "tenant"],
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
    op.create_index("jobs_tenant_newest_idx", "jobs", ["tenant", *newest])
    op.create_index("jobs_newest_idx", "jobs", [*newest, "tenant"])
    op.create_index(
        "jobs_undelivered_idx",
        "jobs",
        ["undelivered_since", "tenant"],
        postgresql_where=sa.text("undelivered_since IS NOT NULL"),
    )


def _create_job_details() -> None:
    op.create_table(
        "job_details",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("detail_id", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, sa.Identity(always=False), nullable=False),
        sa.Column("step_name", sa.Text, nullable=False),
        sa.Column("step_key", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("retry_count", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("result", JSONB),
        sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("error", sa.Text),
        sa.Column("traceback", sa.Text),
        _instant_now("created_at"),
        _instant_now("updated_at"),
        _instant("processed_at"),
        sa.PrimaryKeyConstraint("tenant", "detail_id", name="job_details_pkey"),
        sa.CheckConstraint(f"status IN ({STATUSES})", name="job_details_status_check"),
        **UPDATED_OFTEN,
    )
    op.create_index("job_details_job_idx", "job_details", ["tenant", "job_id", "sequence"])


def _create_job_keys() -> None:
    op.create_table(
        "job_keys",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary),
        sa.Column("counter", sa.BigInteger),
        _instant("expires_at"),
        sa.PrimaryKeyConstraint("tenant", "key", name="job_keys_pkey"),
        **UPDATED_OFTEN,
    )
    op.create_index(
        "job_keys_expiry_idx",
        "job_keys",
        ["expires_at", "tenant"],
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )

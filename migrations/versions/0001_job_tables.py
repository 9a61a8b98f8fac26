"""The job record: jobs, job_details, job_keys. The original's own jobs and job_details are taken over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.errors import DatabaseError
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.schema.rendering import schema_of
from jobbridge.store.schema import adopt as adopting
from jobbridge.store.schema import originals
from jobbridge.store.schema.adopt import Target

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
    metadata = sa.MetaData()
    jobs, job_details = _jobs(metadata), _job_details(metadata)
    if not adopting.finds_originals(_driver()):
        _refuse_foreign_tables("job_details", "job_keys")
        metadata.create_all(op.get_bind())
    else:
        _refuse_foreign_tables("job_keys")
        with op.get_context().autocommit_block():
            _adopt(jobs, job_details)
    _create_job_keys()


def downgrade() -> None:
    op.drop_table("job_keys")
    metadata = sa.MetaData()
    jobs, job_details = _jobs(metadata), _job_details(metadata)
    if not adopting.was_adopted(_driver()):
        metadata.drop_all(op.get_bind())
        return
    with op.get_context().autocommit_block():
        adopting.give_back(_driver(), _details_target(job_details))
        adopting.give_back(_driver(), _jobs_target(jobs))
        _drop_details_of_ours()
    op.execute(originals.DROP_ADOPTED)


def _adopt(jobs: sa.Table, job_details: sa.Table) -> None:
    adopting.adopt(_driver(), _jobs_target(jobs))
    if originals.describe(_driver(), "job_details") is None:
        job_details.create(op.get_bind())
    else:
        adopting.adopt(_driver(), _details_target(job_details))
    adopting.drop_enum(_driver())


def _drop_details_of_ours() -> None:
    details = originals.describe(_driver(), "job_details")
    if details is not None and "step_key" in details.columns:
        _driver().execute("DROP TABLE public.job_details")  # the original had none


def _jobs_target(jobs: sa.Table) -> Target:
    return Target(
        table=jobs,
        key="job_id",
        filled=adopting.JOBS_FILLED,
        is_ours="new.delivery IS NOT NULL OR new.attempt > 0 OR new.user_id IS NULL",
    )


def _details_target(job_details: sa.Table) -> Target:
    return Target(
        table=job_details,
        key="detail_id",
        filled=adopting.DETAILS_FILLED,
        is_ours="new.step_key IS NOT NULL OR new.error IS NOT NULL"
        " OR new.created_at IS DISTINCT FROM coalesce(new.processed_at, new.updated_at)",
    )


def _driver() -> DriverConnection:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # it is in use
    return driver  # type: ignore[return-value]  # the dialect's own


def _refuse_foreign_tables(*names: str) -> None:
    for table in names:
        schema = schema_of(_driver())
        if sa.inspect(op.get_bind()).has_table(table, schema=schema):
            raise DatabaseError(
                f"The database already has a table {schema}.{table} that jobbridge did not make.",
                hint="Set JOBBRIDGE_SCHEMA to a schema of JobBridge's own, or rename that table.",
            )


def _instant(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _instant_now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def _jobs(metadata: sa.MetaData) -> sa.Table:
    newest = [sa.text("created_at DESC"), sa.text("job_id DESC")]
    return sa.Table(
        "jobs",
        metadata,
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
        sa.Index("jobs_job_id_idx", "job_id", "tenant"),
        sa.Index(
            "jobs_external_id_idx",
            "external_id",
            "tenant",
            postgresql_where=sa.text("external_id IS NOT NULL"),
        ),
        sa.Index("jobs_tenant_newest_idx", "tenant", *newest),
        sa.Index("jobs_newest_idx", *newest, "tenant"),
        sa.Index(
            "jobs_undelivered_idx",
            "undelivered_since",
            "tenant",
            postgresql_where=sa.text("undelivered_since IS NOT NULL"),
        ),
        **UPDATED_OFTEN,
    )


def _job_details(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "job_details",
        metadata,
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
        sa.Index("job_details_job_idx", "tenant", "job_id", "sequence"),
        **UPDATED_OFTEN,
    )


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

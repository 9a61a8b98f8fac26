"""Workers' presence, the services' last runs, and how long jobs are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0005_services"
down_revision = "0004_schedules"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("worker_number", sa.BigInteger))
    op.add_column("jobs", sa.Column("broker", sa.Text))
    _create_workers()
    _create_services()
    _create_retention()


def downgrade() -> None:
    for table in ("job_retention", "job_services", "job_workers"):
        op.drop_table(table)
    op.drop_column("jobs", "broker")
    op.drop_column("jobs", "worker_number")


def _text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _texts(name: str) -> sa.Column[object]:
    return sa.Column(name, ARRAY(sa.Text), nullable=False)


def _instant(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _instant_now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def _create_workers() -> None:
    op.create_table(
        "job_workers",
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        _text("name"),
        _text("engine"),
        _text("host"),
        sa.Column("pid", sa.Integer, nullable=False),
        _texts("queues"),
        _texts("tasks"),
        _text("sends_to"),
        _instant_now("started_at"),
        _instant_now("seen_at"),
        sa.PrimaryKeyConstraint("number", name="job_workers_pkey"),
    )


def _create_services() -> None:
    op.create_table(
        "job_services",
        _text("name"),
        _text("holder", nullable=True),
        _instant("last_started"),
        _instant("last_finished"),
        _text("last_error", nullable=True),
        _instant("failed_at"),
        sa.Column("counters", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.PrimaryKeyConstraint("name", name="job_services_pkey"),
    )


def _create_retention() -> None:
    op.create_table(
        "job_retention",
        _text("tenant"),
        _text("status"),
        sa.Column("keep", sa.Interval),
        sa.PrimaryKeyConstraint("tenant", "status", name="job_retention_pkey"),
    )

"""The broker's tables, in the schema jobbridge_broker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_broker"
down_revision = "0001_job_tables"
branch_labels = None
depends_on = None

SCHEMA = "jobbridge_broker"
CHURNING = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 2000,
    "autovacuum_vacuum_cost_delay": 0,
    "autovacuum_analyze_scale_factor": 0,
    "autovacuum_analyze_threshold": 20000,
}


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS jobbridge_broker")
    _create_messages()
    _create_dead_letters()
    _create_topology()
    _create_consumers()


def downgrade() -> None:
    for table in (
        "subscriptions",
        "consumers",
        "bindings",
        "exchanges",
        "queues",
        "dead_letters",
        "messages",
    ):
        op.drop_table(table, schema=SCHEMA)
    op.execute("DROP SCHEMA jobbridge_broker")


def _text(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _instant(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _instant_now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def _identity() -> sa.Column[object]:
    return sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False)


def _flag(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.text("false"))


def _create_messages() -> None:
    op.create_table(
        "messages",
        _identity(),
        _text("queue", nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        _instant("due_at"),
        _instant("expires_at"),
        sa.Column("leased_by", sa.BigInteger),
        sa.Column("deliveries", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        _flag("redelivered"),
        _text("correlation_id"),
        _instant_now("published_at"),
        _text("content_type"),
        _text("content_encoding"),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("properties", sa.JSON, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="messages_pkey"),
        schema=SCHEMA,
        postgresql_with=CHURNING,
    )
    waiting = "leased_by IS NULL"
    for name, columns, where in (
        ("messages_ready", ["queue", sa.text("priority DESC"), "id"], f"{waiting} AND due_at IS NULL"),
        ("messages_due", ["queue", "due_at"], f"{waiting} AND due_at IS NOT NULL"),
        ("messages_expiring", ["expires_at"], f"{waiting} AND expires_at IS NOT NULL"),
        ("messages_leased", ["leased_by"], "leased_by IS NOT NULL"),
        ("messages_waiting_correlation_id", ["correlation_id"], waiting),
    ):
        op.create_index(name, "messages", columns, schema=SCHEMA, postgresql_where=sa.text(where))


def _create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger, nullable=False),
        _text("queue", nullable=False),
        _text("reason", nullable=False),
        _instant_now("died_at"),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        _instant("expires_at"),
        sa.Column("deliveries", sa.SmallInteger, nullable=False),
        _text("correlation_id"),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        _text("content_type"),
        _text("content_encoding"),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("properties", sa.JSON, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="dead_letters_pkey"),
        schema=SCHEMA,
    )
    op.create_index("dead_letters_queue", "dead_letters", ["queue", "died_at"], schema=SCHEMA)


def _create_topology() -> None:
    op.create_table(
        "queues",
        _text("name", nullable=False),
        _flag("auto_delete"),
        sa.Column("owner", sa.BigInteger),
        sa.Column("expires", sa.Interval),
        sa.Column("message_ttl", sa.Interval),
        _instant_now("used_at"),
        _instant_now("created_at"),
        sa.PrimaryKeyConstraint("name", name="queues_pkey"),
        schema=SCHEMA,
    )
    op.create_table(
        "exchanges",
        _text("name", nullable=False),
        _text("type", nullable=False),
        sa.PrimaryKeyConstraint("name", name="exchanges_pkey"),
        schema=SCHEMA,
    )
    op.create_table(
        "bindings",
        _text("exchange", nullable=False),
        _text("queue", nullable=False),
        _text("routing_key", nullable=False),
        _text("pattern"),
        sa.PrimaryKeyConstraint("exchange", "queue", "routing_key", name="bindings_pkey"),
        schema=SCHEMA,
    )
    op.create_index("bindings_queue", "bindings", ["queue"], schema=SCHEMA)


def _create_consumers() -> None:
    op.create_table(
        "consumers",
        _identity(),
        _text("host", nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        _instant_now("started_at"),
        sa.PrimaryKeyConstraint("id", name="consumers_pkey"),
        schema=SCHEMA,
    )
    op.create_table(
        "subscriptions",
        sa.Column("consumer", sa.BigInteger, nullable=False),
        _text("queue", nullable=False),
        sa.PrimaryKeyConstraint("queue", "consumer", name="subscriptions_pkey"),
        schema=SCHEMA,
    )
    op.create_index("subscriptions_consumer", "subscriptions", ["consumer"], schema=SCHEMA)

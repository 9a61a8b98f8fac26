"""The broker's tables, in a schema of their own.

Migrations make them, and a test holds both equal. Read them freely; write to them through kombu only.

What shaped them:

- **One equality, one order.** `messages_ready` holds exactly what can be delivered now, in delivery order, so a
  claim reads the first entries of one queue and stops. That is why a message that is not due yet has `due_at` set
  and one that is due has none: the step from one to the other is a separate, cheap update (`messages_due`).
- **A row lives short**: inserted, leased (one update), deleted. Each index is partial, so that a leased message has
  entries in two small ones only. Vacuum therefore comes by number of dead rows, not by share of the table.
- **A lease is the number of a consumer**: of a worker's process, or of a session. It holds an advisory lock on the
  number for as long as it lives. No clock.
- `json`, not `jsonb`, for what clients send: `jsonb` refuses the character U+0000, which task arguments may
  contain.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)

SCHEMA = "jobbridge_broker"

metadata = MetaData(schema=SCHEMA)

_NOW = text("now()")
_FALSE = text("false")
_CHURNING = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 2000,
    "autovacuum_vacuum_cost_delay": 0,
    "autovacuum_analyze_scale_factor": 0,
    "autovacuum_analyze_threshold": 20000,
}

messages = Table(
    "messages",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, server_default=text("0")),
    Column("due_at", DateTime(timezone=True)),  # null: deliverable now
    Column("expires_at", DateTime(timezone=True)),
    Column("leased_by", BigInteger),  # consumers.id
    Column("deliveries", SmallInteger, nullable=False, server_default=text("0")),
    Column("redelivered", Boolean, nullable=False, server_default=_FALSE),
    Column("correlation_id", Text),  # the AMQP property; Celery puts the task id there
    Column("published_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("content_type", Text),
    Column("content_encoding", Text),
    Column("headers", JSON, nullable=False),
    Column("properties", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("id"),
    postgresql_with=_CHURNING,
)
_READY = (messages.c.leased_by.is_(None)) & (messages.c.due_at.is_(None))
_WAITING = messages.c.leased_by.is_(None)

Index("messages_ready", messages.c.queue, messages.c.priority.desc(), messages.c.id, postgresql_where=_READY)
Index(
    "messages_due",
    messages.c.queue,
    messages.c.due_at,
    postgresql_where=_WAITING & messages.c.due_at.is_not(None),
)
Index(
    "messages_expiring",
    messages.c.expires_at,
    postgresql_where=_WAITING & messages.c.expires_at.is_not(None),
)
Index("messages_leased", messages.c.leased_by, postgresql_where=messages.c.leased_by.is_not(None))
Index("messages_waiting_correlation_id", messages.c.correlation_id, postgresql_where=_WAITING)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, nullable=False),  # the message's
    Column("queue", Text, nullable=False),
    Column("reason", Text, nullable=False),  # 'rejected', 'too_many_deliveries'
    Column("died_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("priority", SmallInteger, nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("deliveries", SmallInteger, nullable=False),
    Column("correlation_id", Text),
    Column("published_at", DateTime(timezone=True), nullable=False),
    Column("content_type", Text),
    Column("content_encoding", Text),
    Column("headers", JSON, nullable=False),
    Column("properties", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("id"),
)
Index("dead_letters_queue", dead_letters.c.queue, dead_letters.c.died_at)

queues = Table(
    "queues",
    metadata,
    Column("name", Text, nullable=False),
    Column("auto_delete", Boolean, nullable=False, server_default=_FALSE),
    Column("owner", BigInteger),  # consumers.id, of an exclusive queue
    Column("expires", Interval),  # deleted when unused for so long
    Column("message_ttl", Interval),
    Column("used_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("name"),
)

exchanges = Table(
    "exchanges",
    metadata,
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    PrimaryKeyConstraint("name"),
)

bindings = Table(
    "bindings",
    metadata,
    Column("exchange", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("pattern", Text),  # of a topic exchange: a regular expression made from the routing key
    PrimaryKeyConstraint("exchange", "queue", "routing_key"),
)
Index("bindings_queue", bindings.c.queue)

consumers = Table(
    "consumers",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    # Which process it is, and when it last proved that it is here (`jobbridge.postgres.presence`).
    Column("boot_id", Text),
    Column("pid_namespace", Text),
    Column("process_began", BigInteger),
    Column("proven_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id"),
)

# One row: when somebody last looked for the dead, on which run of the server, and until when nobody is taken for dead.
sweeps = Table(
    "sweeps",
    metadata,
    Column("only_one", Boolean, nullable=False),
    Column("server_started_at", DateTime(timezone=True), nullable=False),
    Column("swept_at", DateTime(timezone=True), nullable=False),
    Column("grace_until", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("only_one"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("consumer", BigInteger, nullable=False),  # consumers.id
    Column("queue", Text, nullable=False),
    PrimaryKeyConstraint("queue", "consumer"),
)
Index("subscriptions_consumer", subscriptions.c.consumer)

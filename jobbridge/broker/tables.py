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

import sqlalchemy as sa

SCHEMA = "jobbridge_broker"

metadata = sa.MetaData(schema=SCHEMA)

_NOW = sa.text("now()")
_FALSE = sa.text("false")
_CHURNING = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 2000,
    "autovacuum_vacuum_cost_delay": 0,
    "autovacuum_analyze_scale_factor": 0,
    "autovacuum_analyze_threshold": 20000,
}

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("due_at", sa.DateTime(timezone=True)),  # null: deliverable now
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("leased_by", sa.BigInteger),  # consumers.id
    sa.Column("deliveries", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("redelivered", sa.Boolean, nullable=False, server_default=_FALSE),
    sa.Column("correlation_id", sa.Text),  # the AMQP property; Celery puts the task id there
    sa.Column("published_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("content_type", sa.Text),
    sa.Column("content_encoding", sa.Text),
    sa.Column("headers", sa.JSON, nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("is_ruled", sa.Boolean),  # when it comes due, a trigger may hold it
    sa.PrimaryKeyConstraint("id"),
    # In the same page, the log has only what a lease changes; else the whole message once more.
    postgresql_with={**_CHURNING, "fillfactor": 50},
)
_READY = (messages.c.leased_by.is_(None)) & (messages.c.due_at.is_(None))
_WAITING = messages.c.leased_by.is_(None)

sa.Index(
    "messages_ready", messages.c.queue, messages.c.priority.desc(), messages.c.id, postgresql_where=_READY
)
sa.Index(
    "messages_due",
    messages.c.queue,
    messages.c.due_at,
    postgresql_where=_WAITING & messages.c.due_at.is_not(None),
)
sa.Index(
    "messages_expiring",
    messages.c.expires_at,
    postgresql_where=_WAITING & messages.c.expires_at.is_not(None),
)
sa.Index("messages_leased", messages.c.leased_by, postgresql_where=messages.c.leased_by.is_not(None))
sa.Index("messages_waiting_correlation_id", messages.c.correlation_id, postgresql_where=_WAITING)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", sa.BigInteger, nullable=False),  # the message's
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),  # 'rejected', 'too_many_deliveries'
    sa.Column("died_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("deliveries", sa.SmallInteger, nullable=False),
    sa.Column("correlation_id", sa.Text),
    sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("content_type", sa.Text),
    sa.Column("content_encoding", sa.Text),
    sa.Column("headers", sa.JSON, nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("id"),
)
sa.Index("dead_letters_queue", dead_letters.c.queue, dead_letters.c.died_at)

queues = sa.Table(
    "queues",
    metadata,
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("auto_delete", sa.Boolean, nullable=False, server_default=_FALSE),
    sa.Column("owner", sa.BigInteger),  # consumers.id, of an exclusive queue
    sa.Column("expires", sa.Interval),  # deleted when unused for so long
    sa.Column("message_ttl", sa.Interval),
    sa.Column("used_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.PrimaryKeyConstraint("name"),
)

exchanges = sa.Table(
    "exchanges",
    metadata,
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("name"),
)

bindings = sa.Table(
    "bindings",
    metadata,
    sa.Column("exchange", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("routing_key", sa.Text, nullable=False),
    sa.Column("pattern", sa.Text),  # of a topic exchange: a regular expression made from the routing key
    sa.PrimaryKeyConstraint("exchange", "queue", "routing_key"),
)
sa.Index("bindings_queue", bindings.c.queue)

consumers = sa.Table(
    "consumers",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    # Which process it is, and when it last proved that it is here (`jobbridge.postgres.presence`).
    sa.Column("boot_id", sa.Text),
    sa.Column("pid_namespace", sa.Text),
    sa.Column("process_began", sa.BigInteger),
    sa.Column("proven_at", sa.DateTime(timezone=True)),
    sa.PrimaryKeyConstraint("id"),
)

# One row: when somebody last looked for the dead, on which run of the server, and until when nobody is taken for dead.
sweeps = sa.Table(
    "sweeps",
    metadata,
    sa.Column("only_one", sa.Boolean, nullable=False),
    sa.Column("server_started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("swept_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("grace_until", sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint("only_one"),
)

subscriptions = sa.Table(
    "subscriptions",
    metadata,
    sa.Column("consumer", sa.BigInteger, nullable=False),  # consumers.id
    sa.Column("queue", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("queue", "consumer"),
)
sa.Index("subscriptions_consumer", subscriptions.c.consumer)

"""Run the migrations on the connection that `jobbridge.store.schema.migrate` passes; see there for the lock.

How a migration is named and what it must say: README.md, beside this file.
"""

from __future__ import annotations

from alembic import context

from jobbridge.postgres.schema.rendering import schema_of

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("These migrations run through `jobbridge migrate`, which passes them a connection.")

context.configure(
    connection=connection,
    version_table="jobbridge_revisions",
    version_table_schema=schema_of(connection.connection.driver_connection),
    transaction_per_migration=True,
    on_version_apply=context.config.attributes.get("on_version_apply"),
)
with context.begin_transaction():
    context.run_migrations()

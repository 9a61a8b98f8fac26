"""What holds for all our tables of a database, whichever migration made them."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from jobbridge.store.callers import DriverConnection

#: Our tables in schema public that have a tenant, whether they are there yet or not. A test holds it complete.
TENANT_TABLES = (
    "jobs",
    "job_details",
    "job_keys",
    "job_singletons",
    "job_schedules",
    "job_schedule_fires",
    "job_retention",
    "job_suspensions",
    "job_families",
    "job_family_members",
)

#: Columns that name a tenant by another type than `jobs` does. Only a table that was just made has such: it is empty.
_OTHER_TENANTS: LiteralString = """
SELECT other.attrelid::regclass::text, other.attname, format_type(ours.atttypid, ours.atttypmod)
FROM pg_attribute AS other JOIN pg_attribute AS ours ON ours.atttypid <> other.atttypid
WHERE ours.attrelid = to_regclass('public.jobs') AND ours.attname = 'tenant'
  AND other.attname ~ '^(.*_)?tenant$' AND NOT other.attisdropped
  AND other.attrelid IN (SELECT to_regclass('public.' || name) FROM unnest(%(tables)s::text[]) AS name)
"""


def conform(connection: DriverConnection) -> None:
    """Make the tables alike: a tenant has the type that it has in `jobs` (uuid where the original's were taken over).

    So no statement has to cast, and all tables can be distributed by the same key.

    Args:
        connection: In the transaction of the migration that may have made some.
    """
    others = connection.execute(_OTHER_TENANTS, {"tables": list(TENANT_TABLES)}).fetchall()
    for table, column, type_name in others:
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER {column} TYPE {type} USING {column}::text::{type}").format(
                sql.Identifier("public", table), column=sql.Identifier(column), type=sql.SQL(type_name)
            )
        )

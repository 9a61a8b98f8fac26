"""The schema that our tables are in: one in a database, and made when it is not there (decision 0036)."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from jobbridge.errors import DatabaseError
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.schema.rendering import schema_of
from jobbridge.store.schema_range import places_elsewhere

#: Who has locks on our tables, since when, and what they do.
HOLDERS = """
SELECT DISTINCT pid, coalesce(nullif(application_name, ''), usename::text), state, xact_start,
    relation::regclass::text
FROM pg_locks JOIN pg_stat_activity USING (pid) JOIN pg_class ON pg_class.oid = relation
WHERE granted AND locktype = 'relation' AND relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
  AND datname = current_database() AND pid <> pg_backend_pid()
ORDER BY xact_start
LIMIT 3
"""
_IS_THERE: LiteralString = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"

_IS_OURS: LiteralString = """
SELECT to_regclass('public.jobbridge_version') IS NOT NULL AND to_regclass('public.job_keys') IS NOT NULL
"""


def check_only_place(connection: DriverConnection) -> None:
    """Make sure that the tables are not in another schema of the database.

    Messages and the functions for SQL are in schemas of one name in every installation, so there is one in a database.

    Raises:
        DatabaseError: They are; names it. Nothing was changed.
    """
    if connection.execute(_IS_OURS).fetchone() == (True,):
        return  # another schema may have a copy of them
    if others := places_elsewhere(connection):
        raise DatabaseError(
            f"The job tables of the database {connection.info.dbname!r} are in the schema {others[0]!r}, and "
            f"JOBBRIDGE_SCHEMA means {schema_of(connection)!r}. Nothing was changed.",
            hint=f"Set JOBBRIDGE_SCHEMA={others[0]}; or, if they are to go with all that is in them, run "
            f"`JOBBRIDGE_SCHEMA={others[0]} jobbridge migrate --down base` before.",
        )


def make_schema(connection: DriverConnection) -> None:
    """Make it if it is not there, as open as `public` is: what one may do in it, the tables' own grants say."""
    schema = schema_of(connection)
    [(is_there,)] = connection.execute(_IS_THERE, [schema]).fetchall()
    if not is_there:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(sql.Identifier(schema)))

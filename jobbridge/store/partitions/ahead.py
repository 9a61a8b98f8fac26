"""Partitions are made before their time; one that is missing stops nobody, since the default one takes what it would.

A partition is a table first, then attached: so its parent is locked against changes of its form only, and not against
those who write. The default partition is locked meanwhile, and read: it has to have no row of the new one. Rows that
came there because the partition was late move, within the same transaction.

Source: PostgreSQL manual, ALTER TABLE ATTACH PARTITION.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import LiteralString

from psycopg import sql

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.schema.rendering import qualified
from jobbridge.store.partitions.layout import DEFAULT, PARTITIONED, Layout, name_of, table_of
from jobbridge.store.partitions.spans import lowest_id, start_of, stretches

#: For a lock on a table that everybody writes to; whoever comes behind waits as long. Below Postgres's
#: deadlock_timeout, so that it is us who give way.
LOCK_TIMEOUT = timedelta(milliseconds=500)
#: Rows that are moved out of the default partition while it is locked: a second. More are for `jobbridge migrate`.
MOST_STRAYS = 50_000

_STRAYS: LiteralString = """
SELECT count(*) FROM (
    SELECT FROM {default} WHERE job_id >= %(first)s AND job_id < %(end)s LIMIT %(most)s
) AS found
"""
_MOVE: LiteralString = """
WITH moved AS (
    DELETE FROM {default} WHERE job_id >= {first} AND job_id < {end} RETURNING *
)
INSERT INTO {table} SELECT * FROM moved
"""
_OPTIONS: LiteralString = "SELECT reloptions FROM pg_class WHERE oid = %(table)s::regclass"


def make_ahead(
    connection: DriverConnection, layout: Layout, now: datetime, *, most_strays: int | None = MOST_STRAYS
) -> list[str]:
    """Make the partitions that are missing up to the last one that is made before its time.

    Args:
        connection: In autocommit mode; its role owns the tables. Each partition is a transaction of its own.
        layout: What there is.
        now: An aware instant.
        most_strays: One for which the default partition has more rows is not made; None: whatever that takes.

    Returns:
        Their names.

    Raises:
        psycopg.errors.LockNotAvailable: Somebody has the tables for long; the next run tries again.
        psycopg.errors.InsufficientPrivilege: The role does not own them.
    """
    first = layout.ends_at or start_of(layout.width, now)
    made = []
    for start, end in stretches(layout.width, first=first, now=now):
        with connection.transaction():
            limit_locks(connection)
            if most_strays is not None and strays(connection, start, end, most=most_strays + 1) > most_strays:
                continue
            make(connection, start, end, moves=layout.has_default)
        made.append(name_of(start))
    return made


def limit_locks(connection: DriverConnection) -> None:
    """Give up a lock that is not to be had soon, in this transaction."""
    milliseconds = str(round(LOCK_TIMEOUT.total_seconds() * 1000))
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [milliseconds])


def strays(connection: DriverConnection, start: datetime, end: datetime, *, most: int) -> int:
    """Count the jobs of that time that are in the default partition, up to a number."""
    statement = sql.SQL(_STRAYS).format(default=table_of("jobs", DEFAULT))
    params = {"first": lowest_id(start), "end": lowest_id(end), "most": most}
    row = connection.execute(statement, params).fetchone()
    return int(row[0]) if row else 0


def make(connection: DriverConnection, start: datetime, end: datetime, *, moves: bool) -> None:
    """Make one partition of each table, in the caller's transaction.

    Args:
        connection: In a transaction.
        start: Beginning.
        end: End.
        moves: Out of the default partition, what is of its time.
    """
    bounds = {"first": sql.Literal(str(lowest_id(start))), "end": sql.Literal(str(lowest_id(end)))}
    for table in PARTITIONED:
        part, default = table_of(table, name_of(start)), table_of(table, DEFAULT)
        create(connection, table, part)
        if moves:
            # A move is no end of a job: its triggers are for what happens to one.
            connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(default))
            connection.execute(sql.SQL(_MOVE).format(default=default, table=part, **bounds))
            connection.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(default))
        connection.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({first}) TO ({end})").format(
                sql.Identifier("public", table), part, **bounds
            )
        )


def create(
    connection: DriverConnection, table: str, part: sql.Identifier, options: Sequence[str] | None = None
) -> None:
    """Make a table that can become a partition; its indexes and triggers come when it is attached.

    Args:
        connection: In a transaction.
        table: Of which.
        part: How it is called.
        options: As `fillfactor=70`; those of the default partition, if not given.
    """
    if options is None:
        row = connection.execute(_OPTIONS, {"table": qualified(connection, f"{table}_{DEFAULT}")}).fetchone()
        options = row[0] if row else None
    like = "CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
    connection.execute(sql.SQL(like).format(part, sql.Identifier("public", table)))
    if options:
        set_options(connection, part, options)
    if has_row_level_security(connection, table):
        _guard(connection, table, part)


def set_options(connection: DriverConnection, table: sql.Identifier, options: Sequence[str]) -> None:
    """Set options of a table, each as `fillfactor=70`."""
    pairs = sql.SQL(", ").join(_option(each) for each in options)
    connection.execute(sql.SQL("ALTER TABLE {} SET ({})").format(table, pairs))


def _option(text: str) -> sql.Composed:
    name, _, value = text.partition("=")
    return sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))


def has_row_level_security(connection: DriverConnection, table: str) -> bool:
    """Whether roles see the rows of one tenant only."""
    row = connection.execute(
        "SELECT relrowsecurity FROM pg_class WHERE oid = %s::regclass", [qualified(connection, table)]
    )
    return row.fetchone() == (True,)


def _guard(connection: DriverConnection, table: str, part: sql.Identifier) -> None:
    """Whoever asks a partition by its own name sees nothing, but for the roles that see all tenants."""
    row = connection.execute(
        "SELECT array_agg(role::regrole::text) FROM pg_policy, unnest(polroles) AS role"
        " WHERE polrelid = %s::regclass AND polname = 'jobbridge_services'",
        [qualified(connection, table)],
    ).fetchone()
    on = "ALTER TABLE {} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    connection.execute(sql.SQL(on).format(part))
    roles = sql.SQL(", ").join(map(sql.SQL, row[0])) if row and row[0] else sql.SQL("CURRENT_USER")
    policy = "CREATE POLICY jobbridge_services ON {} TO {} USING (true) WITH CHECK (true)"
    connection.execute(sql.SQL(policy).format(part, roles))

"""Whole tables become tables in partitions: copied, in one transaction, which nobody sees half done.

A table cannot become partitioned in its place. To attach it as a partition of a new one would spare the copy, and all
that there was would be one partition for ever, with ids that are of no time in it. So rows are copied to where they
belong; who writes waits for it, and where that is long `migrate` wants to be told (`--force`). What the tables had
(indexes, triggers, policies, grants, defaults) is read from the catalog and made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import sql

from jobbridge.errors import DatabaseError
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.schema.rendering import qualified
from jobbridge.store.partitions.ahead import create, make, set_options
from jobbridge.store.partitions.layout import DEFAULT, PARTITIONED, layout_of, say_width, table_of
from jobbridge.store.partitions.spans import Width, start_of, stretches

#: Rows whose copy takes seconds.
FEW = 100_000

_INDEXES: LiteralString = """
SELECT pg_get_indexdef(indexrelid)
FROM pg_index
WHERE indrelid = %(table)s::regclass AND NOT indisprimary AND indisvalid
ORDER BY indexrelid::regclass::text
"""
_TRIGGERS: LiteralString = """
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal ORDER BY tgname
"""
_KEY: LiteralString = """
SELECT conname, array_agg(attname ORDER BY place)
FROM pg_constraint CROSS JOIN unnest(conkey) WITH ORDINALITY AS part (number, place)
JOIN pg_attribute ON attrelid = conrelid AND attnum = number
WHERE conrelid = %(table)s::regclass AND contype = 'p'
GROUP BY conname
"""
_POLICIES: LiteralString = """
SELECT policyname, roles::text[], qual, with_check FROM pg_policies
WHERE schemaname = 'public' AND 'public.' || tablename = %(table)s AND cmd = 'ALL' AND permissive = 'PERMISSIVE'
ORDER BY 1
"""
_GRANTS: LiteralString = """
SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type, is_grantable
FROM pg_class CROSS JOIN aclexplode(relacl)
WHERE oid = %(table)s::regclass
"""
_OWNED: LiteralString = """
SELECT relowner::regrole::text, relrowsecurity, relforcerowsecurity, reloptions
FROM pg_class WHERE oid = %(table)s::regclass
"""
#: What cannot be carried over: somebody's foreign keys, to or from; what follows the table's own number.
_IN_THE_WAY: LiteralString = """
SELECT 'the foreign key ' || conname || ' of ' || conrelid::regclass
FROM pg_constraint
WHERE contype = 'f' AND %(table)s::regclass IN (conrelid, confrelid)
UNION ALL
SELECT 'the view ' || ev_class::regclass
FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid
WHERE classid = 'pg_rewrite'::regclass AND refobjid = %(table)s::regclass AND ev_class <> refobjid
UNION ALL
SELECT 'the publication ' || pubname
FROM pg_publication_rel JOIN pg_publication ON pg_publication.oid = prpubid
WHERE prrelid = %(table)s::regclass
ORDER BY 1
"""
_IDENTITIES: LiteralString = """
SELECT attname, attidentity, pg_get_serial_sequence(%(table)s, attname)
FROM pg_attribute
WHERE attrelid = %(table)s::regclass AND attidentity <> '' AND NOT attisdropped
"""
_OLDEST: LiteralString = "SELECT min(created_at) FROM public.jobs"
_NUMBER: LiteralString = "SELECT count(*) FROM (SELECT FROM public.jobs LIMIT %(most)s) AS counted"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Anatomy:
    """What a table has beside its columns and checks."""

    key: tuple[str, list[str]]
    indexes: Sequence[str]
    triggers: Sequence[str]
    policies: Sequence[tuple[Any, ...]]
    grants: Sequence[tuple[Any, ...]]
    identities: Sequence[tuple[Any, ...]]
    owner: str
    is_guarded: bool
    is_forced: bool
    options: Sequence[str]


def convert(
    connection: DriverConnection, width: Width, now: datetime, *, since: datetime | None = None
) -> None:
    """Give both tables partitions, in the caller's transaction.

    Args:
        connection: Its role owns the tables.
        width: Of a partition.
        now: An aware instant.
        since: The first partition holds it, if no job is older.

    Raises:
        DatabaseError: Something hangs on the tables that would be lost.
    """
    tables = [qualified(connection, table) for table in PARTITIONED]
    for name in tables:
        if found := connection.execute(_IN_THE_WAY, {"table": name}).fetchall():
            what = ", ".join(each for (each,) in found)
            raise DatabaseError(
                f"{name} cannot be partitioned: {what} hangs on it.",
                hint="Drop that, run it again, and make it anew on the partitioned table.",
            )
    names = sql.SQL(", ").join(sql.Identifier("public", table) for table in PARTITIONED)
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
    [(oldest,)] = connection.execute(_OLDEST).fetchall()
    first = start_of(width, min(at for at in (oldest, since, now) if at is not None))
    anatomies = {table: _anatomy(connection, qualified(connection, table)) for table in PARTITIONED}
    for table, anatomy in anatomies.items():
        _put_aside(connection, table, anatomy)
    for start, end in stretches(width, first=first, now=now):
        make(connection, start, end, moves=False)
    for table, anatomy in anatomies.items():
        _fill(connection, table, anatomy)
    say_width(connection, width)


def make_whole(connection: DriverConnection) -> None:
    """Make whole tables of them again, if need be, in the caller's transaction: the way back, which copies, too."""
    if layout_of(connection) is None:
        return
    names = sql.SQL(", ").join(sql.Identifier("public", table) for table in PARTITIONED)
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
    for table in PARTITIONED:
        anatomy = _anatomy(connection, qualified(connection, table), is_divided=True)
        _put_aside(connection, table, anatomy, is_divided=False)
        _fill(connection, table, anatomy)


def has_many(connection: DriverConnection) -> bool:
    """Whether the copy takes longer than somebody who sends would like to wait."""
    [(number,)] = connection.execute(_NUMBER, {"most": FEW + 1}).fetchall()
    return int(number) > FEW


def _anatomy(connection: DriverConnection, table: str, *, is_divided: bool = False) -> _Anatomy:
    """Read it; of one that is in partitions, as it is when it is whole."""

    def rows(statement: LiteralString) -> list[tuple[Any, ...]]:
        return connection.execute(statement, {"table": table}).fetchall()

    [(name, columns)] = rows(_KEY)
    [(owner, is_guarded, is_forced, options)] = rows(_OWNED)
    if is_divided:
        columns = [each for each in columns if each != "job_id" or table.endswith(".jobs")]
        row = connection.execute(_OWNED, {"table": f"{table}_{DEFAULT}"}).fetchone()
        options = row[3] if row else None
    elif "job_id" not in columns:
        # A key over all partitions has to contain what they are told apart by.
        columns = [*columns, "job_id"]
    return _Anatomy(
        key=(name, columns),
        indexes=[each.replace(" ON ONLY ", " ON ", 1) for (each,) in rows(_INDEXES)],
        triggers=[each for (each,) in rows(_TRIGGERS)],
        policies=rows(_POLICIES),
        grants=rows(_GRANTS),
        identities=rows(_IDENTITIES),
        owner=owner,
        is_guarded=is_guarded,
        is_forced=is_forced,
        options=options or (),
    )


def _before(table: str) -> sql.Identifier:
    return sql.Identifier("public", f"{table}_before")


def _put_aside(
    connection: DriverConnection, table: str, anatomy: _Anatomy, *, is_divided: bool = True
) -> None:
    """Have another table under the name, without rows, with a default partition if so; the rows are in the old one."""

    def execute(statement: LiteralString, *parts: sql.Composable) -> None:
        connection.execute(sql.SQL(statement).format(*parts, table=sql.Identifier("public", table)))

    execute("ALTER TABLE {table} RENAME TO {}", sql.Identifier(f"{table}_before"))
    execute(
        "CREATE TABLE {table} ("
        "LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING GENERATED){}",
        _before(table),
        sql.SQL(" PARTITION BY RANGE (job_id)" if is_divided else ""),
    )
    execute("ALTER TABLE {table} OWNER TO {}", sql.SQL(anatomy.owner))
    if anatomy.is_guarded:
        execute("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    if anatomy.is_forced:
        execute("ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for name, roles, condition, check in anatomy.policies:
        execute(
            "CREATE POLICY {} ON {table} TO {} USING ({}) WITH CHECK ({})",
            sql.Identifier(name),
            sql.SQL(", ").join(
                sql.SQL("PUBLIC") if role == "public" else sql.Identifier(role) for role in roles
            ),
            sql.SQL(condition),
            sql.SQL(check or condition),
        )
    if not is_divided:
        if anatomy.options:
            set_options(connection, sql.Identifier("public", table), anatomy.options)
        return
    create(connection, table, table_of(table, DEFAULT), anatomy.options)
    execute("ALTER TABLE {table} ATTACH PARTITION {} DEFAULT", table_of(table, DEFAULT))


def _fill(connection: DriverConnection, table: str, anatomy: _Anatomy) -> None:
    """Copy the rows, then make what the table had: indexes are quicker made than kept, triggers are for what is new."""

    def execute(statement: LiteralString, *parts: sql.Composable) -> None:
        connection.execute(sql.SQL(statement).format(*parts, table=sql.Identifier("public", table)))

    execute("INSERT INTO {table} SELECT * FROM {}", _before(table))
    next_values = []
    for column, kind, sequence in anatomy.identities:
        [(value, is_called)] = connection.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.SQL(sequence))
        ).fetchall()
        next_values.append((column, kind, sequence.split(".")[-1], value, is_called))
    execute("DROP TABLE {}", _before(table))
    for column, kind, sequence, value, is_called in next_values:
        how = sql.SQL("BY DEFAULT" if kind == "d" else "ALWAYS")
        execute(
            "ALTER TABLE {table} ALTER {} ADD GENERATED {} AS IDENTITY (SEQUENCE NAME {})",
            sql.Identifier(column),
            how,
            sql.Identifier("public", sequence.strip('"')),
        )
        connection.execute(
            "SELECT setval(pg_get_serial_sequence(%s, %s), %s, %s)",
            [qualified(connection, table), column, value, is_called],
        )
    name, columns = anatomy.key
    execute(
        "ALTER TABLE {table} ADD CONSTRAINT {} PRIMARY KEY ({})",
        sql.Identifier(name),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
    )
    for definition in (*anatomy.indexes, *anatomy.triggers):
        connection.execute(sql.SQL(definition))
    for role, privilege, is_grantable in anatomy.grants:
        with_option = sql.SQL(" WITH GRANT OPTION" if is_grantable else "")
        execute("GRANT {} ON {table} TO {}{}", sql.SQL(privilege), sql.SQL(role), with_option)
    connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("public", table)))

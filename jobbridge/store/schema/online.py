"""Change a large table while it is in use: nothing here holds a lock for longer than a change of the catalog takes.

A column that gets another type is a new column beside the old one, its *shadow*. A trigger fills it for rows that are
written meanwhile, batches fill it for rows that are there, and then the two change places. What must not be null is
first checked without a lock (a CHECK that is NOT VALID, then VALIDATE), after which SET NOT NULL reads no row.

Each step can be taken again, so a change that was interrupted goes on where it was.

Source: PostgreSQL manual, ALTER TABLE ("Notes") and CREATE INDEX ("Building Indexes Concurrently").
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg import sql

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.schema.rendering import qualified

_log = logging.getLogger(__name__)

#: Pages of 8 kB that one batch rewrites: some thousand rows, a fraction of a second.
BATCH_PAGES = 200

_PAGES: LiteralString = """
SELECT pg_relation_size(%(table)s::regclass) / current_setting('block_size')::integer
"""

_CONSTRAINTS: LiteralString = "SELECT conname FROM pg_constraint WHERE conrelid = %(table)s::regclass"

_INDEX_IS_VALID: LiteralString = """
SELECT indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = %(table)s::regclass AND relname = %(index)s
"""

_INDEX_IS_SO: LiteralString = """
SELECT indisvalid AND right(pg_get_indexdef(indexrelid), length(%(definition)s)) = %(definition)s
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = %(table)s::regclass AND relname = %(index)s
"""


_IS_PARTITIONED: LiteralString = "SELECT relkind = 'p' FROM pg_class WHERE oid = %(table)s::regclass"
_IS_DIVIDED: LiteralString = "SELECT relkind = 'I' FROM pg_class WHERE oid = to_regclass(%(index)s)"
_LEAVES: LiteralString = """
SELECT relname FROM pg_partition_tree(%(table)s::regclass) JOIN pg_class ON oid = relid WHERE isleaf ORDER BY relname
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewrite:
    """What becomes of the rows of a table of ours. Expressions are SQL over the row `new`.

    Attributes:
        retyped: Column → its type afterwards, and its value.
        filled: Column → its value where it has none.
        once: Column → its value, for rows of before only: what the trigger must not repeat.
        required: Columns without null afterwards.
        checks: Constraint → its condition; a retyped column is meant by its new form.
    """

    table: str
    retyped: Mapping[str, tuple[str, str]]
    filled: Mapping[str, str] = field(default_factory=dict)
    once: Mapping[str, str] = field(default_factory=dict)
    required: Sequence[str] = ()
    checks: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> sql.Identifier:
        return sql.Identifier("public", self.table)

    @property
    def trigger(self) -> str:
        return f"jobbridge_rewrite_{self.table}"


def shadow(column: str) -> str:
    """Name the column that is to take the place of another."""
    return f"jobbridge_new_{column}"


def rewrite(connection: DriverConnection, change: Rewrite) -> None:
    """Give all rows their new values, in batches; `swap` then makes the new columns those of the table.

    Args:
        connection: In autocommit mode, with a lock_timeout.
        change: What to do.
    """
    with connection.transaction():
        _prepare(connection, change)
    _fill(connection, change)
    for name in [*change.checks, *map(_not_null_name, change.required)]:
        _execute(connection, "ALTER TABLE {} VALIDATE CONSTRAINT {}", change.name, sql.Identifier(name))


def swap(connection: DriverConnection, change: Rewrite) -> None:
    """Make the new columns those of the table, in the caller's transaction: a change of the catalog only."""
    execute = _executor(connection, change)
    execute("DROP TRIGGER {} ON {table}", sql.Identifier(change.trigger))
    execute("DROP FUNCTION {}()", sql.Identifier("public", change.trigger))
    for column in change.retyped:
        execute("ALTER TABLE {table} DROP COLUMN {}", sql.Identifier(column))
        execute(
            "ALTER TABLE {table} RENAME COLUMN {} TO {}",
            sql.Identifier(shadow(column)),
            sql.Identifier(column),
        )
    for column in change.required:
        execute("ALTER TABLE {table} ALTER {} SET NOT NULL", sql.Identifier(column))
        execute("ALTER TABLE {table} DROP CONSTRAINT {}", sql.Identifier(_not_null_name(column)))


def create_indexes(connection: DriverConnection, table: str, indexes: Mapping[str, str]) -> None:
    """Make indexes while the table is written to.

    Waits for transactions that began before, which blocks nobody; so no lock_timeout counts here.

    Args:
        connection: In autocommit mode.
        table: In our schema.
        indexes: Name → `CREATE INDEX CONCURRENTLY …`.
    """
    with _waiting_as_long_as_it_takes(connection):
        for name, statement in indexes.items():
            known = {"table": qualified(connection, table), "index": name}
            found = connection.execute(_INDEX_IS_VALID, known).fetchone()
            if found == (True,):
                continue
            if found is not None:  # it was interrupted: it is there, and of no use
                drop_indexes(connection, [name])
            _log.info("index_is_made", extra={"table": table, "index": name})
            if connection.execute(_IS_PARTITIONED, {"table": qualified(connection, table)}).fetchone() == (
                True,
            ):
                _create_on_partitions(connection, table, name, statement)
            else:
                connection.execute(sql.SQL(statement))


def _create_on_partitions(connection: DriverConnection, table: str, name: str, statement: str) -> None:
    """Make the parts one after another, then attach them: the whole is valid when all are there."""
    definition = statement.split(" ON ", 1)[1].partition("(")
    rest = sql.SQL("".join(definition[1:]))
    unique = sql.SQL("UNIQUE " if statement.split()[1] == "UNIQUE" else "")
    whole = sql.Identifier("public", name)
    target = sql.Identifier("public", table)
    _execute(connection, "CREATE {}INDEX {} ON ONLY {} {}", unique, sql.Identifier(name), target, rest)
    for (leaf,) in connection.execute(_LEAVES, {"table": qualified(connection, table)}).fetchall():
        part = f"{name}_{leaf.removeprefix(table + '_')}"
        own = sql.Identifier("public", leaf)
        _execute(connection, "DROP INDEX CONCURRENTLY IF EXISTS {}", sql.Identifier("public", part))
        _execute(
            connection, "CREATE {}INDEX CONCURRENTLY {} ON {} {}", unique, sql.Identifier(part), own, rest
        )
        _execute(connection, "ALTER INDEX {} ATTACH PARTITION {}", whole, sql.Identifier("public", part))


def replace_indexes(connection: DriverConnection, table: str, indexes: Mapping[str, LiteralString]) -> None:
    """Give indexes another definition under the same name, while the table is read by them and written to.

    The new one is made beside the old one, then they change names, then the old one goes.

    Args:
        connection: In autocommit mode.
        table: In our schema.
        indexes: Name → its definition from the list of columns on, as `pg_get_indexdef` has it.
    """
    for name, definition in indexes.items():
        known = {"table": qualified(connection, table), "index": name, "definition": definition}
        if connection.execute(_INDEX_IS_SO, known).fetchone() != (True,):
            made = f"CREATE INDEX CONCURRENTLY {name}_made ON public.{table} {definition}"
            create_indexes(connection, table, {f"{name}_made": made})
            with connection.transaction():
                for before, after in ((name, f"{name}_former"), (f"{name}_made", name)):
                    names = (sql.Identifier("public", before), sql.Identifier(after))
                    _execute(connection, "ALTER INDEX IF EXISTS {} RENAME TO {}", *names)
        drop_indexes(connection, [f"{name}_former"])


def drop_indexes(connection: DriverConnection, names: Sequence[str]) -> None:
    """Drop indexes of our schema, as `create_indexes` makes them."""
    with _waiting_as_long_as_it_takes(connection):
        for name in names:
            # Postgres drops the index of a partitioned table only with a lock: of the catalog's change, no more.
            is_divided = connection.execute(
                _IS_DIVIDED, {"index": qualified(connection, name)}
            ).fetchone() == (True,)
            how: LiteralString = "" if is_divided else "CONCURRENTLY "
            _execute(connection, f"DROP INDEX {how}IF EXISTS {{}}", sql.Identifier("public", name))


@contextmanager
def _waiting_as_long_as_it_takes(connection: DriverConnection) -> Iterator[None]:
    [(before,)] = connection.execute("SELECT current_setting('lock_timeout')").fetchall()
    connection.execute("SET lock_timeout = 0")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [before])


def _prepare(connection: DriverConnection, change: Rewrite) -> None:
    execute = _executor(connection, change)
    for column, (type_name, _) in change.retyped.items():
        execute(
            "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {} {}",
            sql.Identifier(shadow(column)),
            sql.SQL(type_name),
        )
    execute(
        "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}",
        sql.Identifier("public", change.trigger),
        sql.Literal(_trigger_body(change).as_string(connection)),
    )
    execute(
        "CREATE OR REPLACE TRIGGER {} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {}()",
        sql.Identifier(change.trigger),
        sql.Identifier("public", change.trigger),
    )
    there = {
        name for (name,) in connection.execute(_CONSTRAINTS, {"table": qualified(connection, change.table)})
    }
    wanted: dict[str, sql.Composable] = {name: sql.SQL(check) for name, check in change.checks.items()}
    for column in change.required:
        is_there = sql.SQL("{} IS NOT NULL").format(sql.Identifier(_actual(change, column)))
        wanted[_not_null_name(column)] = is_there
    for name, condition in wanted.items():
        if name not in there:
            execute(
                "ALTER TABLE {table} ADD CONSTRAINT {} CHECK ({}) NOT VALID", sql.Identifier(name), condition
            )


def _trigger_body(change: Rewrite) -> sql.Composed:
    """While the change goes on, whoever writes a row writes the old columns: the new ones follow."""
    assign = sql.SQL("NEW.{} := {}; ")
    follow = sql.SQL(
        "IF NEW.{new} IS NULL OR NEW.{old} IS DISTINCT FROM OLD.{old} THEN NEW.{new} := {value}; END IF; "
    )
    steps = [
        follow.format(new=sql.Identifier(shadow(column)), old=sql.Identifier(column), value=sql.SQL(value))
        for column, (_, value) in change.retyped.items()
    ]
    steps += [
        assign.format(
            sql.Identifier(column), sql.SQL("coalesce(NEW.{}, {})").format(sql.Identifier(column), value)
        )
        for column, value in ((column, sql.SQL(text)) for column, text in change.filled.items())
    ]
    return sql.SQL("BEGIN {}RETURN NEW; END").format(sql.SQL("").join(steps))


def _fill(connection: DriverConnection, change: Rewrite) -> None:
    """Rewrite what the trigger did not: from the first page to what was the last one when this began.

    Rows that are written meanwhile have been through the trigger, wherever they are.
    """
    [(pages,)] = connection.execute(_PAGES, {"table": qualified(connection, change.table)}).fetchall()
    statement = _batch_statement(change)
    for page in range(0, pages, BATCH_PAGES):
        connection.execute(statement, {"first": f"({page},0)", "end": f"({page + BATCH_PAGES},0)"})
        if page % (BATCH_PAGES * 50) == 0:
            _log.info("table_is_rewritten", extra={"table": change.table, "page": page, "pages": pages})


def _batch_statement(change: Rewrite) -> sql.Composed:
    # The trigger does the rest: an UPDATE that sets nothing else would do, and `once` is what it must not do.
    touched = next(iter(change.retyped))
    values: dict[str, sql.Composable] = {column: sql.SQL(value) for column, value in change.once.items()}
    if not values:
        values[shadow(touched)] = sql.SQL("NULL")
    assignments = [
        sql.SQL("{} = {}").format(sql.Identifier(column), value) for column, value in values.items()
    ]
    return sql.SQL(
        "UPDATE {table} AS new SET {assignments}"
        " WHERE ctid >= %(first)s::tid AND ctid < %(end)s::tid AND {mark} IS NULL"
    ).format(
        table=change.name,
        assignments=sql.SQL(", ").join(assignments),
        mark=sql.Identifier(shadow(touched)),
    )


def _actual(change: Rewrite, column: str) -> str:
    return shadow(column) if column in change.retyped else column


def _not_null_name(column: str) -> str:
    return f"jobbridge_{column}_is_there"


def _execute(connection: DriverConnection, statement: LiteralString, *parts: sql.Composable) -> None:
    connection.execute(sql.SQL(statement).format(*parts))


def _executor(connection: DriverConnection, change: Rewrite) -> Any:
    def execute(statement: LiteralString, *parts: sql.Composable) -> None:
        connection.execute(sql.SQL(statement).format(*parts, table=change.name))

    return execute

"""What the original's tables are like, as far as it has to be known to take them over and to give them back.

`public.jobbridge_adopted` keeps it, a row for each table, as long as the tables are ours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from jobbridge.errors import DatabaseError
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.schema.rendering import qualified

CREATE_ADOPTED: LiteralString = """
CREATE TABLE IF NOT EXISTS public.jobbridge_adopted (
    table_name text CONSTRAINT jobbridge_adopted_pkey PRIMARY KEY,
    was jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('adopting', 'adopted', 'returning', 'returned'))
)
"""

DROP_ADOPTED: LiteralString = "DROP TABLE IF EXISTS public.jobbridge_adopted"

_FIND: LiteralString = "SELECT was, state FROM public.jobbridge_adopted WHERE table_name = %(table)s"

_KEEP: LiteralString = """
INSERT INTO public.jobbridge_adopted (table_name, was, state) VALUES (%(table)s, %(was)s, 'adopting')
"""

_SET_STATE: LiteralString = """
UPDATE public.jobbridge_adopted SET state = %(state)s WHERE table_name = %(table)s
"""

_FORGET: LiteralString = "DELETE FROM public.jobbridge_adopted WHERE table_name = %(table)s"

_COLUMNS: LiteralString = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid), typtype = 'e'
FROM pg_attribute
JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum
"""

_LABELS: LiteralString = """
SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = to_regtype(%(type)s)
"""

_FOREIGN_KEYS: LiteralString = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = to_regclass(%(table)s) AND contype = 'f'
"""

_INDEXES: LiteralString = """
SELECT relname, pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = to_regclass(%(table)s) AND NOT indisprimary
"""

_PRIMARY_KEY: LiteralString = """
SELECT array_agg(attname::text ORDER BY array_position(indkey::int2[], attnum))
FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
WHERE indrelid = to_regclass(%(table)s) AND indisprimary
"""

#: What would be in the way of a column that changes its type: views, triggers, policies, rules.
_DEPENDENTS: LiteralString = """
SELECT DISTINCT pg_describe_object(classid, objid, objsubid)
FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
WHERE refclassid = 'pg_class'::regclass AND refobjid = to_regclass(%(table)s) AND attname = ANY(%(columns)s)
  AND classid IN ('pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass)
ORDER BY 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginalColumn:
    type: str
    is_required: bool
    default: str | None
    is_enum: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """A table as it was.

    Attributes:
        labels: Of the enum that its status had; empty if that was text.
        foreign_keys: Name → definition.
        indexes: Name → definition, without the primary key's.
    """

    table: str
    columns: dict[str, OriginalColumn]
    labels: list[str]
    foreign_keys: dict[str, str]
    indexes: dict[str, str]


def describe(connection: DriverConnection, table: str) -> Original | None:
    """Read a table of our schema from the catalog; None if there is none."""
    known = {"table": qualified(connection, table)}
    columns = {
        name: OriginalColumn(type=type_name, is_required=required, default=default, is_enum=is_enum)
        for name, type_name, required, default, is_enum in connection.execute(_COLUMNS, known).fetchall()
    }
    if not columns:
        return None
    status = columns.get("status")
    labels: list[str] = []
    if status is not None and status.is_enum:
        [(labels,)] = connection.execute(_LABELS, {"type": status.type}).fetchall()
    return Original(
        table=table,
        columns=columns,
        labels=labels,
        foreign_keys=dict(connection.execute(_FOREIGN_KEYS, known).fetchall()),
        indexes=dict(connection.execute(_INDEXES, known).fetchall()),
    )


def remembered(connection: DriverConnection, table: str) -> tuple[Original, str] | None:
    """Give a table that was taken over as it was, and how far that is; None if it was not."""
    [(is_there,)] = connection.execute("SELECT to_regclass('public.jobbridge_adopted')").fetchall()
    row = is_there and connection.execute(_FIND, {"table": table}).fetchone()
    if not row:
        return None
    was: dict[str, Any] = row[0]
    columns = {name: OriginalColumn(**column) for name, column in was["columns"].items()}
    return Original(**was | {"columns": columns}), row[1]


def remember(connection: DriverConnection, original: Original) -> None:
    """Keep what a table was like."""
    connection.execute(_KEEP, {"table": original.table, "was": Jsonb(asdict(original))})


def set_state(connection: DriverConnection, table: str, state: str) -> None:
    """Note how far it is: adopting, adopted, returning or returned."""
    connection.execute(_SET_STATE, {"table": table, "state": state})


def forget(connection: DriverConnection, table: str) -> None:
    """It is the original's again."""
    connection.execute(_FORGET, {"table": table})


def check_fits(connection: DriverConnection, original: Original, *, key: str, known: set[str]) -> None:
    """Make sure that it is the original's table, and that nothing is in the way.

    Args:
        connection: To look at the catalog with.
        original: The table.
        key: The column that is its primary key, together with tenant.
        known: The columns that our statements fill.

    Raises:
        DatabaseError: It is another table, or something depends on what has to change.
    """
    misfits = _misfits(connection, original, key)
    if misfits:
        raise DatabaseError(
            f"The database already has a table {qualified(connection, original.table)} that jobbridge did not make, "
            f"and which is not one that it can take over: {'; '.join(misfits)}.",
            hint="Set JOBBRIDGE_SCHEMA to a schema of JobBridge's own, or rename that table.",
        )
    foreign = [
        name
        for name, column in original.columns.items()
        if name not in known and column.is_required and column.default is None
    ]
    if foreign:
        raise DatabaseError(
            f"The table {qualified(connection, original.table)} has columns that jobbridge does not know "
            f"and that must have a value: {', '.join(foreign)}.",
            hint="Give them a default, or make them nullable; then run `jobbridge migrate` again.",
        )
    check_unhindered(connection, original.table)


def check_unhindered(connection: DriverConnection, table: str) -> None:
    """Make sure that nothing depends on the columns that get another type.

    Raises:
        DatabaseError: Something does; names it.
    """
    changing = ["status", "type", "runner_type", "external_id", "external_run_id", "step_name"]
    found = connection.execute(
        _DEPENDENTS, {"table": qualified(connection, table), "columns": changing}
    ).fetchall()
    if found:
        names = "; ".join(name for (name,) in found)
        raise DatabaseError(
            f"Columns of {qualified(connection, table)} have to change their type, and other objects use them: "
            f"{names}.",
            hint="Drop these objects, run `jobbridge migrate`, and make them again.",
        )


def _misfits(connection: DriverConnection, original: Original, key: str) -> list[str]:
    wanted = {
        "tenant": ("uuid",),
        "job_id": ("uuid",),
        key: ("uuid",),
        "status": ("text", "character varying"),
        "metadata": ("jsonb",),
        "updated_at": ("timestamp with time zone",),
    }
    misfits = []
    for name, types in wanted.items():
        column = original.columns.get(name)
        if column is None:
            misfits.append(f"it has no column {name}")
        elif not (column.type.partition("(")[0] in types or (name == "status" and column.is_enum)):
            misfits.append(f"{name} is {column.type}, not {types[0]}")
    [(primary_key,)] = connection.execute(
        _PRIMARY_KEY, {"table": qualified(connection, original.table)}
    ).fetchall()
    if not misfits and primary_key != ["tenant", key]:
        misfits.append(f"its primary key is {primary_key or 'missing'}, not (tenant, {key})")
    return misfits

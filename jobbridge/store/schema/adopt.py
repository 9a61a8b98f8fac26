"""Take over the original's tables `jobs` and `job_details`, and give them back: revision 0001 on such a database.

The rows stay where they are. `tenant` stays a uuid, `pgboss` stays readable as a name of the community engine, and the
enum `job_status` becomes text. Foreign keys go, since jobs of no tenant belong to the system, which is nobody's tenant.
On the way back, what the original's tables cannot hold is put under the key `jobbridge` of the row's metadata, from
where the way up takes it again.

What if the process dies between two steps? Each step can be taken again; `jobbridge_adopted` says what was begun. Run
`jobbridge migrate` (or the downgrade) again, and it goes on. Until its last step, the original's columns are as they
were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateColumn, CreateIndex

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.schema import originals
from jobbridge.store.schema.online import Rewrite, create_indexes, drop_indexes, rewrite, shadow, swap
from jobbridge.store.schema.originals import Original

#: Statuses that the original's enum may not have → what comes nearest there.
NEAREST = {
    "scheduled": "queued",
    "retrying": "queued",
    "waiting": "queued",
    "cancelled": "failed",
    "expired": "failed",
    "skipped": "failed",
}
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
_NOBODY = "'00000000-0000-0000-0000-000000000000'::uuid"

#: When a step was, as a number that orders the steps of a job: microseconds.
_MOMENT = "(extract(epoch FROM coalesce(new.processed_at, new.updated_at, now())) * 1000000)::bigint"

_SEQUENCE_FROM_NOW: LiteralString = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 1"

#: The key under which a row remembers what the original's columns cannot hold.
_ASIDE = "jobbridge"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A table as revision 0001 makes it.

    Attributes:
        table: Its columns, constraints and indexes.
        key: What identifies a row of a tenant.
        filled: Column → its value where a row of the original has none.
        is_ours: Tells the rows that have more to remember than the original's columns hold; SQL over `new`.
    """

    table: sa.Table
    key: str
    filled: Mapping[str, str]
    is_ours: str

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def required(self) -> list[str]:
        return [column.name for column in self.table.columns if not column.nullable]


JOBS_FILLED = {
    "task_id": "new.job_id::text",
    "metadata": "'{}'::jsonb",
    "runner_type": "'pgboss'",
    "created_at": "coalesce(new.updated_at, now())",
    "updated_at": "coalesce(new.created_at, now())",
}
DETAILS_FILLED = {
    "sequence": _MOMENT,
    "step_name": "''",
    "metadata": "'{}'::jsonb",
    "retry_count": "0",
    "created_at": "coalesce(new.processed_at, new.updated_at, now())",
    "updated_at": "coalesce(new.processed_at, now())",
}


def finds_originals(connection: DriverConnection) -> bool:
    """Whether there is a table `jobs`, of the original or of anybody else."""
    return originals.describe(connection, "jobs") is not None


def was_adopted(connection: DriverConnection) -> bool:
    """Whether the tables were the original's before they were ours."""
    [(is_there,)] = connection.execute("SELECT to_regclass('public.jobbridge_adopted')").fetchall()
    return is_there is not None


# -- taking over


def adopt(connection: DriverConnection, target: Target) -> None:
    """Make a table of the original that of revision 0001.

    Args:
        connection: In autocommit mode, with a lock_timeout.
        target: What it is to be.

    Raises:
        DatabaseError: It is not the original's table, or something depends on what has to change.
    """
    known = originals.remembered(connection, target.name)
    if known is None:
        found = originals.describe(connection, target.name)
        assert found is not None  # the caller has seen it
        originals.check_fits(connection, found, key=target.key, known=set(target.table.columns.keys()))
        with connection.transaction():
            connection.execute(originals.CREATE_ADOPTED)
            originals.remember(connection, found)
    elif known[1] == "adopted":
        return
    else:
        found = known[0]
    with connection.transaction():
        _make_room(connection, target, found)
    change = _rewrite_to_ours(target)
    rewrite(connection, change)
    _take_back_from_metadata(connection, target, found)
    create_indexes(connection, target.name, _indexes(target.table))
    with connection.transaction():
        swap(connection, change)
        if "sequence" in target.table.columns:
            _go_on_counting(connection, target.name)
        originals.set_state(connection, target.name, "adopted")
    connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier("public", target.name)))


def drop_enum(connection: DriverConnection) -> None:
    """Drop the original's enum, once no table uses it; it stays if something else does."""
    known = originals.remembered(connection, "jobs")
    if known is None or not known[0].labels:
        return
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("DROP TYPE IF EXISTS {}").format(sql.SQL(known[0].columns["status"].type))
            )
    except psycopg.errors.DependentObjectsStillExist:
        return


def _make_room(connection: DriverConnection, target: Target, found: Original) -> None:
    """Add what is missing and loosen what is too tight: changes of the catalog."""
    table = sql.Identifier("public", target.name)
    for name in found.foreign_keys:
        statement = "ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}"
        connection.execute(sql.SQL(statement).format(table, sql.Identifier(name)))
    for column in target.table.columns:
        for clause in _column_clauses(column, found, is_filled=column.name in target.filled):
            connection.execute(sql.SQL("ALTER TABLE {} {}").format(table, clause))
    options = target.table.dialect_options["postgresql"]["with"]
    settings = sql.SQL(", ").join(sql.SQL(f"{name} = {value}") for name, value in options.items())
    connection.execute(sql.SQL("ALTER TABLE {} SET ({})").format(table, settings))


def _column_clauses(column: sa.Column[object], found: Original, *, is_filled: bool) -> list[sql.Composable]:
    name = sql.Identifier(column.name)
    was = found.columns.get(column.name)
    default = column.server_default if isinstance(column.server_default, sa.DefaultClause) else None
    clauses: list[sql.Composable] = []
    if was is None:
        # Not null comes later, when every row has a value. A default given here would be the value of all rows.
        plain = sa.Column(column.name, column.type, server_default=None if is_filled else default)
        ddl = str(CreateColumn(plain).compile(dialect=_DIALECT))
        clauses.append(sql.SQL("ADD COLUMN IF NOT EXISTS {}").format(sql.SQL(ddl)))
    elif was.is_required and column.nullable:
        clauses.append(sql.SQL("ALTER {} DROP NOT NULL").format(name))
    if was is not None and was.type.startswith("character varying"):
        clauses.append(sql.SQL("ALTER {} TYPE text").format(name))  # rewrites nothing, also no index
    if default is not None:
        clauses.append(sql.SQL("ALTER {} SET DEFAULT {}").format(name, sql.SQL(str(default.arg))))
    return clauses


def _rewrite_to_ours(target: Target) -> Rewrite:
    checks = {
        str(check.name): str(check.sqltext).replace("status", shadow("status"))
        for check in target.table.constraints
        if isinstance(check, sa.CheckConstraint)
    }
    status = "CASE new.status::text WHEN 'active' THEN 'processing' ELSE new.status::text END"
    return Rewrite(
        table=target.name,
        retyped={"status": ("text", status)},
        filled=target.filled,
        required=target.required,
        checks=checks,
    )


def _indexes(table: sa.Table) -> dict[str, str]:
    statements = {}
    for index in table.indexes:
        ddl = str(CreateIndex(index).compile(dialect=_DIALECT))
        statements[str(index.name)] = ddl.replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1).replace(
            f" ON {table.name} ", f" ON public.{table.name} ", 1
        )
    return statements


def _go_on_counting(connection: DriverConnection, table: str) -> None:
    [(start,)] = connection.execute(_SEQUENCE_FROM_NOW).fetchall()
    connection.execute(
        sql.SQL("ALTER TABLE {} ALTER sequence ADD GENERATED BY DEFAULT AS IDENTITY (START WITH {})").format(
            sql.Identifier("public", table), sql.Literal(start)
        )
    )


# -- giving back


def give_back(connection: DriverConnection, target: Target) -> None:
    """Make a table the original's again.

    Args:
        connection: In autocommit mode, with a lock_timeout.
        target: What it is now.

    Raises:
        DatabaseError: Something depends on what has to change.
    """
    known = originals.remembered(connection, target.name)
    if known is None:
        return
    was = known[0]
    if known[1] != "returned":
        _rewrite_back(connection, target, was)
    indexes = {name: _concurrently(definition) for name, definition in was.indexes.items()}
    create_indexes(connection, target.name, indexes)
    _validate_foreign_keys(connection, target, was)
    connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier("public", target.name)))
    originals.forget(connection, target.name)


def _rewrite_back(connection: DriverConnection, target: Target, was: Original) -> None:
    originals.check_unhindered(connection, target.name)
    originals.set_state(connection, target.name, "returning")
    if was.labels:
        _make_enum(connection, was)
    change = _rewrite_to_originals(connection, target, was)
    rewrite(connection, change)
    drop_indexes(connection, [name for name in _indexes(target.table) if name not in was.indexes])
    with connection.transaction():
        for check in target.table.constraints:
            if isinstance(check, sa.CheckConstraint):
                _alter(connection, target, "DROP CONSTRAINT IF EXISTS {}", sql.Identifier(str(check.name)))
        swap(connection, change)
        _restore(connection, target, was)
        originals.set_state(connection, target.name, "returned")


def _make_enum(connection: DriverConnection, was: Original) -> None:
    type_name = was.columns["status"].type
    [(is_there,)] = connection.execute("SELECT to_regtype(%s)", [type_name]).fetchall()
    if is_there is None:
        labels = sql.SQL(", ").join(map(sql.Literal, was.labels))
        connection.execute(sql.SQL("CREATE TYPE {} AS ENUM ({})").format(sql.SQL(type_name), labels))


def _rewrite_to_originals(connection: DriverConnection, target: Target, was: Original) -> Rewrite:
    own = {"status", *was.columns}
    status = was.columns["status"].type
    retyped = {"status": (status, f"{_nearest(was, 'new.status')}::{status}")}
    for name, column in was.columns.items():
        if name != "status" and column.type.startswith("character varying"):
            limit = column.type.partition("(")[2].rstrip(")")
            retyped[name] = (column.type, f"left(new.{name}, {limit})" if limit else f"new.{name}")
    required = [name for name, column in was.columns.items() if column.is_required]
    filled = {"user_id": _NOBODY} if "user_id" in required else {}
    kept = sql.Literal(sorted(own - {"status", "user_id", *retyped})).as_string(connection)
    unknown = (
        f"new.status <> ALL ({sql.Literal(was.labels).as_string(connection)}::text[])"
        if was.labels
        else "false"
    )
    aside = f"""CASE WHEN {target.is_ours} OR {unknown} THEN
        CASE jsonb_typeof(new.metadata) WHEN 'object' THEN new.metadata ELSE '{{}}'::jsonb END
        || jsonb_build_object('{_ASIDE}', (
            SELECT jsonb_object_agg(key, value) FROM jsonb_each(to_jsonb(new) - {kept}::text[])
            WHERE (value <> 'null'::jsonb OR key = 'user_id') AND NOT starts_with(key, '{shadow("")}')
        ))
        ELSE new.metadata END"""
    return Rewrite(
        table=target.name, retyped=retyped, filled=filled, once={"metadata": aside}, required=required
    )


def _nearest(was: Original, status: str) -> str:
    missing = {ours: theirs for ours, theirs in NEAREST.items() if was.labels and ours not in was.labels}
    cases = "".join(f" WHEN '{ours}' THEN '{theirs}'" for ours, theirs in missing.items())
    text = f"CASE {status}{cases} ELSE {status} END" if cases else status
    return f"({text})"


def _take_back_from_metadata(connection: DriverConnection, target: Target, found: Original) -> None:
    """Put what an earlier way down set aside where it was, unless the row has changed since."""
    kept = {"tenant", target.key, "status", "metadata"}
    names = [column.name for column in target.table.columns if column.name not in kept]
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    statement = sql.SQL(
        """
        UPDATE {table} AS job SET ({columns}, {status}, metadata) = (
            SELECT {columns}, was.metadata ->> 'status', job.metadata - {aside}
            FROM jsonb_populate_record(job, (job.metadata -> {aside}) - 'status')
        )
        FROM (SELECT tenant, {key}, metadata -> {aside} AS metadata FROM {table}
              WHERE jsonb_typeof(metadata -> {aside}) = 'object') AS was
        WHERE job.tenant = was.tenant AND job.{key} = was.{key} AND job.status::text = {nearest}
        """
    ).format(
        table=sql.Identifier("public", target.name),
        columns=columns,
        status=sql.Identifier(shadow("status")),
        aside=sql.Literal(_ASIDE),
        key=sql.Identifier(target.key),
        nearest=sql.SQL(_nearest(found, "(was.metadata ->> 'status')")),
    )
    connection.execute(statement)


def _restore(connection: DriverConnection, target: Target, was: Original) -> None:
    """Drop what is not the original's, and put back what it had: changes of the catalog."""
    for name in [column.name for column in target.table.columns]:
        column = was.columns.get(name)
        if column is None:
            _alter(connection, target, "DROP COLUMN IF EXISTS {}", sql.Identifier(name))
            continue
        if not column.is_required:
            _alter(connection, target, "ALTER {} DROP NOT NULL", sql.Identifier(name))
        if column.default is None:
            _alter(connection, target, "ALTER {} DROP DEFAULT", sql.Identifier(name))
        else:
            _alter(
                connection, target, "ALTER {} SET DEFAULT {}", sql.Identifier(name), sql.SQL(column.default)
            )
    options = sql.SQL(", ").join(map(sql.SQL, target.table.dialect_options["postgresql"]["with"]))
    _alter(connection, target, "RESET ({})", options)
    for name, definition in was.foreign_keys.items():
        text = sql.SQL(definition if definition.endswith("NOT VALID") else f"{definition} NOT VALID")
        _alter(connection, target, "ADD CONSTRAINT {} {}", sql.Identifier(name), text)


def _validate_foreign_keys(connection: DriverConnection, target: Target, was: Original) -> None:
    """Check them against all rows; one that jobs of the system do not fit stays as it is, for new rows only."""
    for name, definition in was.foreign_keys.items():
        if definition.endswith("NOT VALID"):
            continue
        try:
            _alter(connection, target, "VALIDATE CONSTRAINT {}", sql.Identifier(name))
        except psycopg.errors.ForeignKeyViolation:
            continue


def _alter(
    connection: DriverConnection, target: Target, clause: LiteralString, *parts: sql.Composable
) -> None:
    statement = sql.SQL("ALTER TABLE {} ").format(sql.Identifier("public", target.name))
    connection.execute(statement + sql.SQL(clause).format(*parts))


def _concurrently(definition: str) -> str:
    for kind in ("CREATE UNIQUE INDEX ", "CREATE INDEX "):
        if definition.startswith(kind):
            return definition.replace(kind, f"{kind}CONCURRENTLY ", 1)
    return definition

"""Names that migrations are about to take, and that somebody else has: found before anything is changed.

What a migration makes is read from its text, so no list has to be kept; what that does not say stands in its `makes`,
names with their schema. A test compares it with what is there then.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, LiteralString

from jobbridge.errors import DatabaseError
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.schema.rendering import rendered, schema_of

#: Tables of the original's, which are taken over if they fit: `originals.check_fits`.
_ADOPTED = frozenset({"public.jobs", "public.job_details"})

_BY_SQL = re.compile(r"CREATE (?:UNLOGGED )?(?:TABLE|SEQUENCE) (\w+\.\w+)")
_FUNCTIONS = re.compile(r"CREATE (?:OR REPLACE )?FUNCTION (\w+\.\w+)\(")
#: As we call them in the schema that we share with others.
_INDEXES = re.compile(r"\bjobs?_\w*(?:idx|key)\b")

# An index of a table that is ours, or that is taken over, is nobody else's. A function that says what ours says was
# made by a migration that did not come to its end.
_TAKEN: LiteralString = """
SELECT wanted.name,
    CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
        WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' WHEN 'f' THEN 'foreign table' ELSE 'type' END
FROM unnest(%(relations)s::text[]) AS wanted (name)
JOIN pg_class ON pg_class.oid = to_regclass(wanted.name)
LEFT JOIN pg_index ON pg_index.indexrelid = pg_class.oid
LEFT JOIN unnest(%(ours)s::text[]) AS our (name) ON pg_index.indrelid = to_regclass(our.name)
WHERE our.name IS NULL
UNION ALL
SELECT DISTINCT wanted.name, 'function'
FROM unnest(%(functions)s::text[]) AS wanted (name)
JOIN pg_proc ON pg_proc.pronamespace::regnamespace || '.' || pg_proc.proname = wanted.name
WHERE position(btrim(pg_proc.prosrc, E' \\n') IN %(texts)s) = 0
ORDER BY 1
"""

# Where a database is, is written into these before any migration runs.
_FOREIGN_BOOKS: LiteralString = """
SELECT wanted.name, 'table'
FROM unnest(ARRAY['public.jobbridge_version', 'public.jobbridge_revisions']) AS wanted (name)
JOIN pg_class ON pg_class.oid = to_regclass(wanted.name)
WHERE pg_class.relkind <> 'r' OR NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'version_num' AND NOT attisdropped
)
"""


def check_books_are_ours(connection: DriverConnection) -> None:
    """Make sure that nobody else has the tables that say where the database is.

    Raises:
        DatabaseError: Somebody has; names it. Nothing was changed.
    """
    _refuse(connection, connection.execute(_FOREIGN_BOOKS).fetchall())


def check_names_are_free(connection: DriverConnection, scripts: Iterable[Any]) -> None:
    """Make sure that nobody else has a name that these revisions of alembic's will take.

    Raises:
        DatabaseError: Somebody has; names it. Nothing was changed.
    """
    modules = [script.module for script in scripts]
    tables = {name for module in modules for name in relations_in(inspect.getsource(module))}
    others = {name for module in modules for name in other_names_in(module)}
    texts = "\n".join(text for module in modules for text in _texts_of(vars(module)))

    def said(names: Iterable[str]) -> list[str]:
        return sorted(rendered(name, connection) for name in names)

    named = {
        "relations": said((tables | others) - _ADOPTED),
        "functions": said(others | {name for module in modules for name in functions_in(module)}),
        "ours": said(tables | _ADOPTED),
        "texts": rendered(texts, connection),
    }
    _refuse(connection, connection.execute(_TAKEN, named).fetchall())


def _refuse(connection: DriverConnection, taken: list[Any]) -> None:
    if taken:
        own = f"{schema_of(connection)}."
        way_out = "Set JOBBRIDGE_SCHEMA to a schema of JobBridge's own for all its processes, and migrate"
        if not any(name.startswith(own) for name, _ in taken):
            way_out = "Give JobBridge a database of its own"
        told = ", ".join(f"the {kind} {name}" for name, kind in taken)
        raise DatabaseError(
            f"The database has what JobBridge did not make, under names that it is about to use: {told}. "
            "Nothing was changed.",
            hint=f"{way_out}; or rename it.",
        )


def relations_in(text: str) -> Iterator[str]:
    """Name the tables and sequences that a migration makes, with their schema."""
    tree = ast.parse(text)
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="create_table"), args=[ast.Constant(value=str(name)), *_]):
                yield f"{_schema_of(node, constants)}.{name}"
    yield from _BY_SQL.findall(text)


def functions_in(module: Any) -> Iterator[str]:
    """Name the functions that a migration's text makes, with their schema; not those of ours that it `replaces`."""
    ours = frozenset(getattr(module, "replaces", ()))
    yield from (name for name in _FUNCTIONS.findall(inspect.getsource(module)) if name not in ours)


def other_names_in(module: Any) -> Iterator[str]:
    """Name the indexes that a migration makes beside the tables, and what its `makes` says."""
    yield from getattr(module, "makes", ())
    for text in (inspect.getsource(module), *_texts_of(vars(module))):
        yield from (f"public.{name}" for name in _INDEXES.findall(text))


def _texts_of(value: Any) -> Iterator[str]:
    """Give the texts that a module's constants hold, with what was put together when it was loaded."""
    match value:
        case str():
            yield value
        case dict():
            for name, each in value.items():
                if not str(name).startswith("__"):
                    yield from _texts_of(name)
                    yield from _texts_of(each)
        case list() | tuple() | set() | frozenset():
            for each in value:
                yield from _texts_of(each)


def _schema_of(call: ast.Call, constants: dict[str, Any]) -> Any:
    for keyword in call.keywords:
        if keyword.arg == "schema":
            value = keyword.value
            return constants[value.id] if isinstance(value, ast.Name) else ast.literal_eval(value)
    return "public"

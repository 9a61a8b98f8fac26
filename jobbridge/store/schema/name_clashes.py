"""Names that migrations are about to take, and that somebody else has: found before anything is changed.

What a migration makes is read from its text, so no list has to be kept; a test compares it with what is there then.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, LiteralString

from jobbridge.errors import DatabaseError
from jobbridge.postgres.caller_connection import DriverConnection

#: Tables of the original's, which are taken over if they fit: `originals.check_fits`.
_ADOPTED = frozenset({"public.jobs", "public.job_details"})

_BY_SQL = re.compile(r"CREATE (?:UNLOGGED )?(?:TABLE|SEQUENCE) (\w+\.\w+)")
_FUNCTIONS = re.compile(r"CREATE FUNCTION (\w+\.\w+)\(")

_TAKEN: LiteralString = """
SELECT name,
    CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
        WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' WHEN 'f' THEN 'foreign table' ELSE 'type' END
FROM unnest(%(relations)s::text[]) AS wanted (name)
JOIN pg_class ON pg_class.oid = to_regclass(wanted.name)
UNION ALL
SELECT name, 'function'
FROM unnest(%(functions)s::text[]) AS wanted (name)
WHERE to_regproc(wanted.name) IS NOT NULL
ORDER BY 1
"""


def check_names_are_free(connection: DriverConnection, scripts: Iterable[Any]) -> None:
    """Make sure that nobody else has a name that these revisions of alembic's will take.

    Raises:
        DatabaseError: Somebody has; names it. Nothing was changed.
    """
    texts = [inspect.getsource(script.module) for script in scripts]
    relations = sorted({name for text in texts for name in relations_in(text)} - _ADOPTED)
    functions = sorted({name for text in texts for name in _FUNCTIONS.findall(text)})
    taken = connection.execute(_TAKEN, {"relations": relations, "functions": functions}).fetchall()
    if taken:
        named = ", ".join(f"the {kind} {name}" for name, kind in taken)
        raise DatabaseError(
            f"The database has what JobBridge did not make, under names that it is about to use: {named}. "
            "Nothing was changed.",
            hint="Rename it, or give JobBridge a database of its own: its tables are always in the schema public.",
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


def _schema_of(call: ast.Call, constants: dict[str, Any]) -> Any:
    for keyword in call.keywords:
        if keyword.arg == "schema":
            value = keyword.value
            return constants[value.id] if isinstance(value, ast.Name) else ast.literal_eval(value)
    return "public"

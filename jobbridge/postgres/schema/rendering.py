"""Statements that say `public.`, said for another schema.

Our statements name everything of ours with `public.`, the default. Where `JOBBRIDGE_SCHEMA` says otherwise, cursors of
ours render each text once and send the rendered one. Only names that are ours are meant: a table of the user's own, in
a statement that he runs on a connection of ours, stays where he says that it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from psycopg import sql

from jobbridge.postgres.schema.names import OURS, PUBLIC

# Partitions have names of their own (decision 0035).
_NAMED = re.compile(
    rf'(?<![\w."])(?:public|"public")\.'
    rf'(?="?(?:{"|".join(OURS)}|jobbridge_\w+|(?:jobs|job_details)_(?:p\d{{8}}|default|before))\b)'
)
# A migration also says `SET search_path = 'public'`, and puts names together: `'public.' || name`.
_ANY = re.compile(r"""(?<![\w."])(?:public|"public")(?=\.)|(?<=')public(?=')""")


def schema_of(connection: object) -> str:
    """Say for which schema a connection renders statements."""
    return getattr(connection, "schema", PUBLIC)


def qualified(connection: object, name: str) -> str:
    """Give the name of something of ours with the schema that a connection renders statements for."""
    return f"{schema_of(connection)}.{name}"


def speak(connection: Any, schema: str, *, says_all: bool = False) -> None:
    """Have a connection of psycopg's render what it sends for a schema.

    Args:
        connection: Of ours, or another face of a caller's; synchronous or not.
        schema: Where what is ours lives.
        says_all: It sends our statements only, and some put names together: migrations.
    """
    connection.schema, connection.says_all = schema, says_all
    if schema != PUBLIC:
        connection.cursor_factory = speaking(connection.cursor_factory)


@cache
def speaking(kind: Any) -> Any:
    """Make a class of cursors that render statements for the schema of their connection from one that does not."""
    return kind if issubclass(kind, _Speaking) else type(f"{kind.__name__}InSchema", (_Speaking, kind), {})


class _Speaking:
    """In front of any of psycopg's cursors; what it calls behind it is a coroutine or not, as with that."""

    connection: Any

    def execute(self, query: Any, *arguments: Any, **named: Any) -> Any:
        return self._behind("execute")(self._said(query), *arguments, **named)

    def executemany(self, query: Any, *arguments: Any, **named: Any) -> Any:
        return self._behind("executemany")(self._said(query), *arguments, **named)

    def stream(self, query: Any, *arguments: Any, **named: Any) -> Any:
        return self._behind("stream")(self._said(query), *arguments, **named)

    def copy(self, statement: Any, *arguments: Any, **named: Any) -> Any:
        return self._behind("copy")(self._said(statement), *arguments, **named)

    def _behind(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(super(), name)
        return found

    def _said(self, query: Any) -> Any:
        return rendered(query, self.connection)


def rendered(query: Any, connection: Any) -> Any:
    """Render a statement of any of psycopg's kinds for the schema of a connection."""
    schema = schema_of(connection)
    if schema == PUBLIC:
        return query
    if isinstance(query, sql.Composable):
        query = query.as_string(
            connection if hasattr(connection, "connection") else None
        )  # psycopg2's is no context
    if isinstance(query, str | bytes):
        return in_schema(query, schema, says_all=getattr(connection, "says_all", False))
    return query


# Statements are constants, and what is put together from parts has few forms: as many as a process uses.
@lru_cache(maxsize=2048)
def in_schema(text: Any, schema: str, *, says_all: bool = False) -> Any:
    """Render a statement's text, `str` or `bytes`, for a schema."""
    if isinstance(text, bytes):
        return in_schema(text.decode(), schema, says_all=says_all).encode()
    return _ANY.sub(schema, text) if says_all else _NAMED.sub(f"{schema}.", text)

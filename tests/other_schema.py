"""JOBBRIDGE_TEST_SCHEMA=some_name: the tables of all tests are in that schema, and not in public (decision 0036).

Processes that tests start are told by the setting (`clean_environment`); this one's targets mean it by default. What
tests say in SQL of their own, on connections of psycopg's, is rendered as what the product says; a caller's connection
that the product is handed is psycopg's own to it, as ever.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from jobbridge.dev.postgres import PostgresServer
from jobbridge.postgres import target
from jobbridge.postgres.schema.rendering import in_schema, speaking
from tests.support import TEST_SCHEMA

_Cursor: Any = speaking(psycopg.Cursor)


class _OfTests(_Cursor):  # type: ignore[misc]  # made at run time
    def _said(self, query: Any) -> Any:
        text = query.as_string(self.connection) if isinstance(query, sql.Composable) else query
        return in_schema(text, TEST_SCHEMA)


def use() -> dict[str, str]:
    """Have this process's tests do so; gives what their Postgres is to be told."""
    if TEST_SCHEMA == "public":
        return {}
    target.PUBLIC = TEST_SCHEMA  # type: ignore[misc]
    made: Any = psycopg.Connection.__init__

    def make(self: psycopg.Connection[Any], *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        if type(self) is psycopg.Connection:
            self.cursor_factory = _OfTests

    psycopg.Connection.__init__ = make  # type: ignore[assignment]
    return {"search_path": f"{TEST_SCHEMA},public"}


def make(server: PostgresServer) -> None:
    """Have each new database of a server have the schema, so that what tests make without one is there, too."""
    if TEST_SCHEMA != "public":
        with psycopg.connect(server.url("template1"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(TEST_SCHEMA)))

"""A hot statement, made ready once: psycopg reads a statement of more than 4,096 characters anew each time.

Source: psycopg 3.3, `_queries.py`, MAX_CACHED_STATEMENT_LENGTH.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, LiteralString, cast

import psycopg
from psycopg.rows import tuple_row

from jobbridge.postgres.caller_connection import DriverConnection, cursor_on
from jobbridge.postgres.psycopg2_connection import over_psycopg2

_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%")


class Prepared:
    """A statement with named parameters (`%(name)s`), in Postgres's own form."""

    def __init__(self, statement: LiteralString) -> None:
        self._names: list[str] = []
        self._statement = statement
        self._text = _PLACEHOLDER.sub(self._placed, statement).encode()

    def _placed(self, found: re.Match[str]) -> str:
        name = found.group(1)
        if name is None:
            return "%"
        if name not in self._names:
            self._names.append(name)
        return f"${self._names.index(name) + 1}"

    def tuples(
        self, connection: DriverConnection, parameters: Mapping[str, Any], *, prepare: bool | None = None
    ) -> list[tuple[Any, ...]]:
        """Run it, and give all rows as tuples; as `cursor`."""
        with self.cursor(connection, parameters, prepare=prepare) as cursor:
            return cursor.fetchall()

    def cursor(
        self, connection: DriverConnection, parameters: Mapping[str, Any], *, prepare: bool | None = None
    ) -> psycopg.RawCursor[tuple[Any, ...]]:
        """Run it, or put it into the connection's pipeline; the rows are read from the cursor.

        Args:
            connection: Also a caller's, which may make rows of another kind.
            parameters: By name; what the statement does not name is left out.
            prepare: On the server, from the first time on; None: as the connection does it.
        """
        cursor: Any = cursor_on(connection, tuple_row, reads_numbered=True)
        if over_psycopg2(connection) is not None:
            cursor.execute(self._statement, parameters)
            return cast("psycopg.RawCursor[tuple[Any, ...]]", cursor)
        cursor.execute(self._text, [parameters[name] for name in self._names], prepare=prepare)
        return cast("psycopg.RawCursor[tuple[Any, ...]]", cursor)


@cache
def prepared(statement: LiteralString) -> Prepared:
    """Make a statement ready, once in this process; there are as many as the code has."""
    return Prepared(statement)

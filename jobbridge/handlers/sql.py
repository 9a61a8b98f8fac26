"""Run a named statement and read its rows, whatever row factory the connection has.

Nothing is prepared: psycopg would prepare what it sees five times, and Postgres then keep a plan that it made while the
tables were small. An import of 100,000 rows into empty tables took five times as long so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import kwargs_row, tuple_row

Connection = psycopg.Connection[Any]
Parameters = Mapping[str, object]
Row = TypeVar("Row")

#: `ctx.transaction`: opens a transaction, commits at the end.
Transaction = Callable[[], AbstractContextManager[Connection]]


def run(connection: Connection, statement: LiteralString, parameters: Parameters) -> int:
    """Give the number of rows that were changed."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement, parameters, prepare=False).rowcount


def one(connection: Connection, statement: LiteralString, parameters: Parameters) -> tuple[Any, ...] | None:
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement, parameters, prepare=False).fetchone()


def rows(connection: Connection, statement: LiteralString, parameters: Parameters) -> list[tuple[Any, ...]]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement, parameters, prepare=False).fetchall()


def one_as(
    make: Callable[..., Row], connection: Connection, statement: LiteralString, parameters: Parameters
) -> Row | None:
    """Give the row, made from its columns by name."""
    with connection.cursor(row_factory=kwargs_row(make)) as cursor:
        return cursor.execute(statement, parameters, prepare=False).fetchone()


def rows_as(
    make: Callable[..., Row], connection: Connection, statement: LiteralString, parameters: Parameters
) -> list[Row]:
    """Give the rows, each made from its columns by name."""
    with connection.cursor(row_factory=kwargs_row(make)) as cursor:
        return cursor.execute(statement, parameters, prepare=False).fetchall()

"""What a statement finds, as objects or tuples; also on a caller's connection, which may make rows of another kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, LiteralString, TypeVar

from psycopg import sql
from psycopg.rows import dict_row, kwargs_row, tuple_row

from jobbridge.postgres.caller_connection import DriverConnection, cursor_on
from jobbridge.postgres.psycopg2_connection import over_psycopg2

_Row = TypeVar("_Row")
_Statement = LiteralString | sql.Composed
_Params = Mapping[str, Any] | None


def all_rows(
    connection: DriverConnection, make: Callable[..., _Row], statement: _Statement, params: _Params = None
) -> list[_Row]:
    """Give all rows, each made from its columns by name."""
    if over_psycopg2(connection) is not None:
        with cursor_on(connection, dict_row) as by_name:
            return [make(**row) for row in by_name.execute(statement, params).fetchall()]
    with cursor_on(connection, kwargs_row(make)) as cursor:
        return cursor.execute(statement, params).fetchall()


def first_row(
    connection: DriverConnection, make: Callable[..., _Row], statement: _Statement, params: _Params = None
) -> _Row | None:
    """Give the first row, made from its columns by name."""
    return next(iter(all_rows(connection, make, statement, params)), None)


def tuples(
    connection: DriverConnection, statement: _Statement, params: _Params = None
) -> list[tuple[Any, ...]]:
    """Give all rows as tuples."""
    with cursor_on(connection, tuple_row) as cursor:
        return cursor.execute(statement, params).fetchall()


def first_tuple(
    connection: DriverConnection, statement: _Statement, params: _Params = None
) -> tuple[Any, ...] | None:
    """Give the first row as a tuple."""
    return next(iter(tuples(connection, statement, params)), None)

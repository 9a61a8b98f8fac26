"""A connection of psycopg2, for a project whose Django stays on it, as far as our statements need one of psycopg 3.

A statement is put together here as psycopg 3 would write its values into it, sent by psycopg2, and the text that comes
back is read by psycopg 3: so both drivers store and give the same. Errors are psycopg 3's, by their SQLSTATE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any, Self

import psycopg
from psycopg import errors
from psycopg._queries import PostgresClientQuery
from psycopg.adapt import Transformer
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import dict_row

from jobbridge.postgres.schema.names import PUBLIC
from jobbridge.postgres.schema.rendering import rendered


def is_of_psycopg2(connection: object) -> bool:
    """Whether it is a connection of psycopg2's, or of a class made from that."""
    return any(each.__module__.partition(".")[0] == "psycopg2" for each in type(connection).__mro__)


def over_psycopg2(connection: object) -> Psycopg2Connection | None:
    """Give it if it is such a one; to the type checker a driver's connection is always psycopg 3's."""
    return connection if isinstance(connection, Psycopg2Connection) else None


class Psycopg2Connection:
    """What of psycopg 3's `Connection` our statements use, over one of psycopg2's.

    Args:
        connection: Of psycopg2; it is begun, committed and closed by its owner.
    """

    #: Its cursors say what is ours for this schema (`schema.rendering.speak`); of psycopg's cursors there are none.
    schema = PUBLIC
    cursor_factory: Any = psycopg.Cursor

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def autocommit(self) -> bool:
        return bool(self._connection.autocommit)

    @property
    def closed(self) -> bool:
        return bool(self._connection.closed)

    @property
    def info(self) -> SimpleNamespace:
        status = TransactionStatus(self._connection.info.transaction_status)
        return SimpleNamespace(dbname=self._connection.info.dbname, transaction_status=status)

    def cursor(self, *, row_factory: Any = None, **_: Any) -> Psycopg2Cursor:
        """Give a cursor whose rows are tuples, or by name with psycopg's `dict_row`."""
        cursor = Psycopg2Cursor(self._connection, is_by_name=row_factory is dict_row)
        cursor.schema = self.schema
        return cursor

    def execute(self, statement: Any, params: Any = None, **_: Any) -> Psycopg2Cursor:
        return self.cursor().execute(statement, params)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold a savepoint: only used where a transaction is open."""
        self.execute("SAVEPOINT jobbridge")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK TO SAVEPOINT jobbridge")
            raise
        self.execute("RELEASE SAVEPOINT jobbridge")


class Psycopg2Cursor:
    """Of a `Psycopg2Connection`."""

    schema = PUBLIC

    def __init__(self, connection: Any, *, is_by_name: bool = False) -> None:
        from psycopg2 import extensions

        self._cursor = connection.cursor(cursor_factory=extensions.cursor)
        extensions.register_type(_as_it_comes(), self._cursor)
        self._is_by_name = is_by_name
        self._reader = Transformer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cursor.close()

    @property
    def rowcount(self) -> int:
        return int(self._cursor.rowcount)

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [column[0] for column in self._cursor.description or ()]

    def execute(
        self, statement: Any, params: Mapping[str, Any] | Sequence[Any] | None = None, **_: Any
    ) -> Self:
        query = PostgresClientQuery(Transformer())
        query.convert(rendered(statement, self), params)
        import psycopg2

        try:
            self._cursor.execute(query.query)
        except psycopg2.Error as error:
            raise _translated(error) from error
        return self

    def executemany(self, statement: Any, rows: Sequence[Any]) -> None:
        for each in rows:
            self.execute(statement, each)

    def fetchall(self) -> list[Any]:
        return [self._read(row) for row in self._cursor.fetchall()]

    def fetchone(self) -> Any:
        row = self._cursor.fetchone()
        return None if row is None else self._read(row)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def _read(self, row: Sequence[str | None]) -> Any:
        load, columns = self._reader.get_loader, self._cursor.description
        values = tuple(
            None if value is None else load(column[1], Format.TEXT).load(value.encode())
            for value, column in zip(row, columns, strict=True)
        )
        return dict(zip(self.names, values, strict=True)) if self._is_by_name else values


@cache
def _as_it_comes() -> Any:
    """Give psycopg2's type for all that psycopg 3 reads: the text, untouched."""
    from psycopg2 import extensions

    known = {oid for each in psycopg.adapters.types for oid in (each.oid, each.array_oid) if oid}
    return extensions.new_type(tuple(known), "AS_IT_COMES", lambda value, _: value)


def _translated(error: Any) -> psycopg.Error:
    message = str(error).strip()
    if not error.pgcode:
        return psycopg.OperationalError(message)
    try:
        return errors.lookup(error.pgcode)(message)
    except KeyError:
        return psycopg.DatabaseError(message)

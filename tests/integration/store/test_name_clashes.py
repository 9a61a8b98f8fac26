"""Whoever has one of our names is found before a migration changes anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobbridge.errors import DatabaseError
from jobbridge.store.schema import migrate as migrations


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        yield connection


def test_whatever_has_one_of_our_names_is_found_before_anything_is_changed(
    empty_database_url: str, database_url: str, connection: psycopg.Connection[Any]
) -> None:
    with psycopg.connect(database_url) as migrated:
        relations = migrated.execute(
            "SELECT relnamespace::regnamespace || '.' || relname, relkind::text FROM pg_class"
            " WHERE relkind IN ('r', 'i') AND relnamespace::regnamespace::text"
            " IN ('public', 'jobbridge', 'jobbridge_broker', 'psa')"
        ).fetchall()
        functions = migrated.execute(
            "SELECT DISTINCT pronamespace::regnamespace || '.' || proname FROM pg_proc"
            " WHERE pronamespace::regnamespace::text IN ('public', 'jobbridge')"
        ).fetchall()
    tables = {name for name, kind in relations if kind == "r"}
    shared = {name for name, kind in relations if kind == "i" and name.startswith("public.")}
    found_otherwise = {"public.jobs", "public.job_details"} | {
        n for n in tables | shared if ".jobbridge_" in n
    }
    for schema in ("jobbridge", "jobbridge_broker", "psa"):
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    for name in (tables | shared) - found_otherwise:
        connection.execute(f"CREATE VIEW {name} AS SELECT 1 AS theirs".encode())
    for (name,) in functions:
        connection.execute(f"CREATE FUNCTION {name}() RETURNS int LANGUAGE sql AS 'SELECT 1'".encode())
    before = _objects(connection)

    with pytest.raises(DatabaseError, match="Nothing was changed") as raised:
        migrations.migrate(empty_database_url)

    told = set(re.findall(r"(?:view|function) (\w+\.\w+)", str(raised.value)))
    assert ((tables | shared) - found_otherwise | {name for (name,) in functions}) - told == set()
    assert _objects(connection) == before


@pytest.mark.parametrize("name", ["jobbridge_version", "jobbridge_revisions"])
def test_a_foreign_table_in_the_place_of_our_books_is_found(
    empty_database_url: str, connection: psycopg.Connection[Any], name: str
) -> None:
    connection.execute(f"CREATE TABLE {name} (theirs int)".encode())
    before = _objects(connection)

    with pytest.raises(DatabaseError, match=name):
        migrations.migrate(empty_database_url)

    assert _objects(connection) == before


def _objects(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information)'"
        " UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1"
    ).fetchall()

"""What the tables are called in the schema that JOBBRIDGE_SCHEMA names."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from jobbridge.errors import DatabaseError, NotMigrated
from jobbridge.postgres.connect import connect
from jobbridge.postgres.schema.names import OURS, PUBLIC
from jobbridge.postgres.schema.rendering import in_schema
from jobbridge.postgres.target import Target
from jobbridge.store.database import Database
from jobbridge.store.schema import migrate as migrations
from tests.support import TEST_SCHEMA

_NAMES = """
SELECT relname::text FROM pg_class WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'v', 'p', 'S')
"""
_ALL = """
SELECT 'relation', relname::text, relkind::text FROM pg_class WHERE relnamespace = %(schema)s::regnamespace
UNION ALL SELECT 'function', proname::text, md5(replace(prosrc, %(schema)s || '.', 'it.'))
FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace
UNION ALL SELECT 'type', typname::text, typtype::text FROM pg_type WHERE typnamespace = %(schema)s::regnamespace
ORDER BY 1, 2, 3
"""


def test_the_list_of_our_names_is_complete(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        found = {name for (name,) in connection.execute(_NAMES, {"schema": TEST_SCHEMA}).fetchall()}
    # Sequences of identity columns are Postgres's to call.
    ours = {name for name in found if not name.startswith("jobbridge_")}
    assert {name for name in ours if not name.endswith("_seq")} == {n for n in OURS if not n.endswith("_seq")}
    assert {name for name in OURS if name.endswith("_seq")} <= found
    for name in found - {n for n in ours if n.endswith("_seq") and n not in OURS}:
        assert in_schema(f"SELECT public.{name}", "mine") == f"SELECT mine.{name}"


def test_another_schema_has_what_public_has_and_public_has_nothing(
    empty_database_url: str, database_url: str
) -> None:
    migrations.migrate(f"{empty_database_url}?schema=mine")
    with psycopg.connect(database_url) as one, psycopg.connect(empty_database_url) as other:
        assert (
            other.execute(_ALL, {"schema": "mine"}).fetchall()
            == one.execute(_ALL, {"schema": TEST_SCHEMA}).fetchall()
        )
        assert other.execute(_NAMES, {"schema": PUBLIC}).fetchall() == []
        assert migrations.current(f"{empty_database_url}?schema=mine") == migrations.heads()


def test_it_works_without_a_schema_public(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as administrator:
        administrator.execute("DROP SCHEMA public CASCADE")
    url = f"{empty_database_url}?schema=mine"

    assert migrations.migrate(url) == migrations.heads()
    assert migrations.migrate(url) == migrations.heads()
    assert len(migrations.set_row_level_security(url, is_on=True)) == 1
    assert migrations.set_row_level_security(url, is_on=False) == []
    assert migrations.downgrade(url, "base") == []
    assert migrations.migrate(url) == migrations.heads()


def test_a_schema_that_is_there_keeps_its_rights(
    empty_database_url: str,
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as administrator:
        administrator.execute("CREATE SCHEMA mine")
        before = administrator.execute("SELECT nspacl FROM pg_namespace WHERE nspname = 'mine'").fetchall()
        migrations.migrate(f"{empty_database_url}?schema=mine")
        after = administrator.execute("SELECT nspacl FROM pg_namespace WHERE nspname = 'mine'").fetchall()
    assert after == before


@pytest.mark.parametrize(("first", "second"), [("public", "mine"), ("mine", "public"), ("mine", "yours")])
def test_a_second_installation_is_refused_with_the_place_of_the_first(
    empty_database_url: str, first: str, second: str
) -> None:
    migrations.migrate(f"{empty_database_url}?schema={first}")

    with pytest.raises(DatabaseError, match=f"are in the schema '{first}'") as raised:
        migrations.migrate(f"{empty_database_url}?schema={second}")
    assert f"JOBBRIDGE_SCHEMA={first}" in raised.value.hint
    with (
        pytest.raises(NotMigrated, match=f"they are in '{first}'") as told,
        closing(Database(f"{empty_database_url}?schema={second}")) as database,
    ):
        database.check()
    assert f"JOBBRIDGE_SCHEMA={first}" in told.value.hint

    migrations.downgrade(f"{empty_database_url}?schema={first}", "base")
    assert migrations.migrate(f"{empty_database_url}?schema={second}") == migrations.heads()


def test_a_copy_of_the_tables_in_another_schema_stops_nobody(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as administrator:
        migrations.migrate(empty_database_url)
        administrator.execute("CREATE SCHEMA backup")
        for table in ("jobbridge_version", "job_keys", "jobs"):
            administrator.execute(f"CREATE TABLE backup.{table} AS TABLE {table}".encode())

    assert migrations.migrate(empty_database_url) == migrations.heads()


def test_a_schema_without_tables_is_named(empty_database_url: str) -> None:
    with (
        pytest.raises(NotMigrated, match=r"The schema 'mine' of the database .* has no tables") as raised,
        closing(Database(f"{empty_database_url}?schema=mine")) as database,
    ):
        database.check()
    assert "jobbridge migrate" in raised.value.hint


def test_for_public_the_cursors_are_psycopgs_own(empty_database_url: str) -> None:
    with connect(Target.of(f"{empty_database_url}?schema=public"), "tests") as own:
        assert own.cursor_factory is psycopg.Cursor

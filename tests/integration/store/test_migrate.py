"""From an empty database to ours and back, alone and with others."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

import jobbridge.store.access.tables
import jobbridge.store.batches.tables
import jobbridge.store.counts.tables
import jobbridge.store.fanout.tables
import jobbridge.store.monitor.tables
import jobbridge.store.rules.tables
import jobbridge.store.schedules.tables
import jobbridge.store.workers.tables  # noqa: F401  (each adds its tables to the metadata)
from jobbridge.cli.root import run
from jobbridge.errors import ConfigurationError, DatabaseError, DatabaseUnavailable, NotMigrated, SchemaTooNew
from jobbridge.postgres.locks import WORKERS
from jobbridge.postgres.presence import draw_number
from jobbridge.postgres.target import Target
from jobbridge.recording import JobRecorder
from jobbridge.store.database import Database
from jobbridge.store.jobs.tables import metadata
from jobbridge.store.schema import migrate as migrations
from jobbridge.store.schema.name_clashes import relations_in
from jobbridge.store.schema_range import THIS_RELEASE
from tests.forked import run_python
from tests.job_events import EventsOf
from tests.support import CONTRACTED, clean_environment, wait_until

#: What a schema is made of, as text that two databases can be compared by.
ANATOMY = """
SELECT format('%%s.%%s %%s %%s default %%s', table_name, column_name, data_type, is_nullable, column_default)
FROM information_schema.columns WHERE table_schema = 'public' AND table_name = ANY(%(tables)s)
UNION ALL
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = ANY(%(tables)s)
UNION ALL
SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE contype <> 't' AND conrelid::regclass::text = ANY(%(tables)s)
UNION ALL
SELECT relname || ' ' || coalesce(reloptions::text, '') FROM pg_class WHERE relname = ANY(%(tables)s)
"""


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        yield connection


def test_up_down_and_up_again(empty_database_url: str, connection: psycopg.Connection[Any]) -> None:
    assert migrations.current(empty_database_url) == []
    assert migrations.migrate(empty_database_url) == migrations.heads()
    assert migrations.current(empty_database_url) == migrations.heads()

    assert migrations.downgrade(empty_database_url, "base") == []
    left = connection.execute(
        "SELECT relname FROM pg_class JOIN pg_namespace AS schema ON schema.oid = relnamespace"
        " WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall()
    assert sorted(left) == [("jobbridge_revisions",), ("jobbridge_version",)]

    assert migrations.migrate(empty_database_url) == migrations.heads()
    assert _takes_a_job(empty_database_url)


def test_migrating_twice_changes_nothing(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(empty_database_url)
    before = _anatomy(connection)

    assert migrations.migrate(empty_database_url) == migrations.heads()
    assert _anatomy(connection) == before


def test_every_step_of_the_way_down_can_be_gone_up_again(empty_database_url: str) -> None:
    migrations.migrate(empty_database_url)
    scripts = ScriptDirectory(str(migrations.script_directory()))

    for head in migrations.heads():
        label = next(iter(scripts.get_revision(head).branch_labels))
        for _ in scripts.iterate_revisions(head, "base"):
            migrations.downgrade(empty_database_url, f"{label}@-1")

    assert migrations.current(empty_database_url) == []
    assert migrations.migrate(empty_database_url) == migrations.heads()


@pytest.mark.parametrize("was_renamed", [False, True], ids=["while it was made", "before the old one went"])
def test_an_index_gets_another_order_also_if_that_was_interrupted(
    empty_database_url: str, connection: psycopg.Connection[Any], was_renamed: bool
) -> None:
    newest, job = (
        "jobs_newest_idx",
        "INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type) VALUES",
    )
    migrations.migrate(empty_database_url, "0025_awaited")
    connection.execute(f"{job} ('t', gen_random_uuid(), 'x', 'x', 'queued', 'celery')".encode())
    if was_renamed:
        connection.execute(f"ALTER INDEX {newest} RENAME TO {newest}_former".encode())
        connection.execute(f"CREATE INDEX {newest} ON jobs (created_at, job_id, tenant DESC)".encode())
    else:
        connection.execute(f"CREATE INDEX {newest}_made ON jobs (created_at, job_id, tenant DESC)".encode())
        connection.execute(
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{newest}_made'::regclass".encode()
        )
    migrations.migrate(empty_database_url, "core@head")

    found = connection.execute(
        "SELECT indexdef FROM pg_indexes WHERE indexname LIKE 'jobs%newest_idx%' ORDER BY indexname"
    ).fetchall()
    assert [text.partition(" USING btree ")[2] for (text,) in found] == [
        "(created_at, job_id, tenant DESC)",
        "(tenant, created_at, job_id)",
    ]
    migrations.downgrade(empty_database_url, "0025_awaited")
    assert "jobbridge_mark_new" not in _triggers(connection)
    migrations.migrate(empty_database_url)
    assert "jobbridge_mark_new" in _triggers(connection)


def _triggers(connection: psycopg.Connection[Any]) -> set[str]:
    return {name for (name,) in connection.execute("SELECT tgname FROM pg_trigger")}


def test_the_metadata_is_what_the_migrations_make(
    empty_database_url: str, database_url: str, connection: psycopg.Connection[Any]
) -> None:
    engine = sa.create_engine(Target.of(empty_database_url).sqlalchemy_url())
    metadata.create_all(engine)
    engine.dispose()

    with psycopg.connect(database_url) as migrated:
        assert _anatomy(migrated) == _anatomy(connection)


def test_this_release_expects_the_newest_core_revision() -> None:
    core = [revision for revision in migrations.heads() if revision[:4].isdigit()]

    assert core == [THIS_RELEASE.newest]
    assert THIS_RELEASE.oldest <= THIS_RELEASE.newest


def test_every_migration_says_whom_it_serves_and_only_ever_gives_up_on_the_oldest() -> None:
    scripts = ScriptDirectory(str(migrations.script_directory()))
    upwards = [script.revision for script in scripts.iterate_revisions("core@head", "base")][::-1]
    later = [revision for revision in upwards if revision > "0014_relatives"]
    said = [scripts.get_revision(revision).module.serves_since for revision in later]

    assert upwards == sorted(upwards)
    assert said == sorted(said)
    assert all(since in upwards[: upwards.index(own) + 1] for own, since in zip(later, said, strict=True))
    assert THIS_RELEASE.newest >= (migrations.serves_since("core@head") or "")


def test_release_0_1_0_is_told_its_own_revisions(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(empty_database_url)

    told = connection.execute("SELECT version_num FROM jobbridge_version ORDER BY 1").fetchall()
    assert told == [("0014_relatives",), ("psa_0003_assets",)]


def test_what_release_0_1_0_has_migrated_goes_on_from_there(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(empty_database_url, "core@0013_bulk_writes")
    connection.execute(
        "DROP TABLE jobbridge_revisions; ALTER TABLE jobbridge_version DROP revision, DROP serves_since"
    )

    with (
        pytest.raises(NotMigrated, match="0013_bulk_writes"),
        closing(Database(empty_database_url)) as database,
    ):
        database.run(lambda connection: None)
    assert migrations.current(empty_database_url) == ["0013_bulk_writes"]
    assert migrations.migrate(empty_database_url) == migrations.heads()
    assert _takes_a_job(empty_database_url)


def test_every_unique_key_and_index_contains_the_tenant(database_url: str) -> None:
    """So that the tables can be distributed by tenant; and nothing cascades from table to table."""
    tables = sorted(name for name, table in metadata.tables.items() if not table.info.get("is_local"))
    with psycopg.connect(database_url) as migrated:
        definitions = migrated.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = ANY(%s)", [tables]
        ).fetchall()
        foreign = migrated.execute(
            "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid::regclass::text = ANY(%s)",
            [tables],
        ).fetchall()

    assert len(definitions) >= 10
    assert [definition for (definition,) in definitions if "tenant" not in definition] == []
    assert foreign == []


def test_processes_that_migrate_at_once_do_not_collide(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    lock = "hashtextextended('jobbridge migrate', 0)"
    waiting = (
        "SELECT FROM pg_stat_activity"
        " WHERE application_name LIKE '% migrate' AND datname = current_database()"
    )
    program = "import sys; from jobbridge.store.schema.migrate import migrate; migrate(sys.argv[1])"
    connection.execute(f"SELECT pg_advisory_lock({lock})")
    argv = ["-c", program, empty_database_url]
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run_python, argv, env=clean_environment()) for _ in range(2)]
        try:
            wait_until(lambda: len(connection.execute(waiting).fetchall()) == 2, timeout=30)
        finally:
            connection.execute(f"SELECT pg_advisory_unlock({lock})")
        ended = [process.result() for process in running]

    assert [process.returncode for process in ended] == [0, 0], [process.stderr for process in ended]
    assert migrations.current(empty_database_url) == migrations.heads()


def test_names_mean_public_whatever_the_search_path_says(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("CREATE SCHEMA elsewhere")
    url = f"{empty_database_url}?options=-csearch_path%3Delsewhere"

    migrations.migrate(url)

    assert _takes_a_job(url)
    assert connection.execute("SELECT count(*) FROM public.jobs").fetchone() == (1,)


def test_a_foreign_table_named_jobs_is_left_alone(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("CREATE TABLE jobs (id int)")

    with pytest.raises(DatabaseError, match=r"already has a table public\.jobs") as raised:
        migrations.migrate(empty_database_url)

    assert "JOBBRIDGE_SCHEMA" in raised.value.hint
    assert connection.execute("SELECT * FROM jobs").fetchall() == []


def test_a_migration_that_fails_leaves_what_was_there(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("CREATE TYPE public.job_details AS (x int)")  # takes the name of the second table

    with pytest.raises(DatabaseError, match="job_details"):
        migrations.migrate(empty_database_url, "core@head")

    assert migrations.current(empty_database_url) == []
    assert connection.execute("SELECT to_regclass('public.jobs')").fetchone() == (None,)
    connection.execute("DROP TYPE public.job_details")
    assert migrations.migrate(empty_database_url) == migrations.heads()


def test_a_later_releases_database_is_not_migrated(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(empty_database_url)
    connection.execute(CONTRACTED)

    with pytest.raises(SchemaTooNew, match="9999_later"):
        migrations.migrate(empty_database_url)


def test_a_later_releases_database_that_serves_this_one_is_left_as_it_is(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    """A container of this release that migrates at its start, while the next one is being rolled out."""
    migrations.migrate(empty_database_url)
    connection.execute(
        "UPDATE jobbridge_version SET revision = '9999_later', serves_since = %s WHERE version_num LIKE '0%%'",
        [THIS_RELEASE.newest],
    )

    assert "9999_later" in migrations.migrate(empty_database_url)
    assert "9999_later" in migrations.current(empty_database_url)
    assert _takes_a_job(empty_database_url)


def test_workers_of_an_older_release_are_named_and_whether_the_tables_serve_them(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(empty_database_url, "core@0014_relatives")
    number = draw_number()
    connection.execute("SELECT pg_advisory_lock(%s)", [WORKERS + number])
    connection.execute(
        "INSERT INTO job_workers (number, name, engine, host, pid, queues, tasks, sends_to)"
        " VALUES (%s, 'w1@shop', 'celery', 'shop', 1, '{}', '{}', 'celery')",
        [number],
    )

    migrations.migrate(empty_database_url)

    assert migrations.older_workers(empty_database_url) == {"w1@shop (0.1.0)": True}
    connection.execute(CONTRACTED)
    assert migrations.older_workers(empty_database_url) == {"w1@shop (0.1.0)": False}


def test_tables_do_not_go_down_beneath_workers_that_run(
    empty_database_url: str, connection: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    migrations.migrate(empty_database_url)
    number = draw_number()
    connection.execute("SELECT pg_advisory_lock(%s)", [WORKERS + number])
    connection.execute(
        "INSERT INTO job_workers (number, name, engine, host, pid, queues, tasks, sends_to)"
        " VALUES (%s, 'w1@shop', 'celery', 'shop', 1, '{}', '{}', 'celery')",
        [number],
    )
    down = ["migrate", "--database-url", empty_database_url, "--down", "core@0019_chords"]
    before = migrations.current(empty_database_url)

    assert run(down) == 3
    told = capsys.readouterr().err
    assert ("w1@shop" in told, "--force" in told) == (True, True)
    assert migrations.current(empty_database_url) == before
    assert run([*down, "--force"]) == 0
    assert "0019_chords" in migrations.current(empty_database_url)


def test_an_unknown_revision_is_named(empty_database_url: str) -> None:
    with pytest.raises(DatabaseError, match="no_such_revision"):
        migrations.migrate(empty_database_url, "no_such_revision")


def test_a_database_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(DatabaseUnavailable, match="'ledger'"):
        migrations.migrate("postgresql://user:secret@127.0.0.1:1/ledger")
    with pytest.raises(ConfigurationError):
        migrations.current("sqlite:///x")


def _takes_a_job(url: str) -> bool:
    database = Database(url)
    try:
        return JobRecorder(database).record(EventsOf().submitted()).applied
    finally:
        database.close()


def _anatomy(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute(ANATOMY, {"tables": sorted(metadata.tables)}).fetchall()
    return sorted(row for (row,) in rows)


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE public.job_events (mine text)",
        "CREATE VIEW public.job_suspensions AS SELECT 1 AS one",
        "CREATE SCHEMA jobbridge_broker CREATE TABLE messages (mine text)",
        "CREATE SEQUENCE public.job_count_parts",
        "CREATE FUNCTION public.jobbridge_count_job() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    ],
)
def test_a_name_that_somebody_else_has_is_found_before_anything_is_changed(
    empty_database_url: str, connection: psycopg.Connection[Any], theirs: str
) -> None:
    connection.execute(theirs.encode())
    before = _objects(connection)
    name = theirs.replace("jobbridge_broker CREATE TABLE ", "").split()[2].split(".")[-1].partition("(")[0]

    with pytest.raises(DatabaseError, match=name) as refused:
        migrations.migrate(empty_database_url)

    way_out = "JOBBRIDGE_SCHEMA" if "public." in theirs else "database of its own"  # where only one can be
    assert way_out in refused.value.hint
    assert _objects(connection) == before


def test_what_migrations_make_is_read_from_their_text(
    empty_database_url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(empty_database_url)
    scripts = ScriptDirectory(str(migrations.script_directory())).walk_revisions()
    read = {name for script in scripts for name in relations_in(inspect.getsource(script.module))}
    made = connection.execute(
        "SELECT relnamespace::regnamespace || '.' || relname FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace::regnamespace::text"
        " IN ('public', 'jobbridge', 'jobbridge_broker', 'psa')"
    ).fetchall()

    own = {"public.jobbridge_version", "public.jobbridge_revisions", "public.jobs", "public.job_details"}
    assert {name for (name,) in made} - own - read == set()


def _objects(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information)'"
        " UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1"
    ).fetchall()

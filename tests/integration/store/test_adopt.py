"""The original's tables become ours, with their rows, and can be given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jobbridge.cli.root import run
from jobbridge.core.events import Submitted
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.errors import DatabaseError
from jobbridge.recording import JobRecorder
from jobbridge.store.database import Database
from jobbridge.store.jobs.queries import JobFilter, JobStore
from jobbridge.store.schema import migrate as migrations
from jobbridge.store.schema import online, originals
from jobbridge.store.schema.conventions import TENANT_TABLES
from tests.forked import run_python
from tests.integration.store.test_migrate import ANATOMY
from tests.job_events import FAR_AHEAD, EventsOf, new_key
from tests.originals import TENANT, USER, create_originals
from tests.support import clean_environment, wait_until

#: How rows of the original read when they are ours.
EXPECTED = {"pending": 10, "processing": 20, "completed": 10, "failed": 10, "queued": 10}

#: What the original's own code can see of its rows.
OLD_JOBS = (
    "SELECT job_id, type, status::text, coalesce(metadata, '{}'), created_at, updated_at, user_id FROM jobs"
)
OLD_DETAILS = (
    "SELECT detail_id, job_id, step_name, status::text, result, processed_at, retry_count FROM job_details"
)


@pytest.fixture
def url(empty_database_url: str) -> str:
    """A database of the original, with 60 jobs."""
    create_originals(empty_database_url)
    return empty_database_url


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


# -- taking over


def test_rows_survive_and_can_be_read(url: str, connection: psycopg.Connection[Any]) -> None:
    before, steps_before = _rows(connection, OLD_JOBS), _rows(connection, OLD_DETAILS)

    assert migrations.migrate(url) == migrations.heads()

    assert _rows(connection, OLD_JOBS) == [_as_ours(row, status=2) for row in before]
    assert _rows(connection, OLD_DETAILS) == [_as_ours(row, status=3) for row in steps_before]
    database = Database(url)
    store = JobStore(database)
    page = store.page(JobFilter(tenant=TenantId(str(TENANT)), engine=Engine.CELERY), limit=100)
    counts = store.count_by_status()
    [first, second] = store.details(page.jobs[0].key)
    database.close()
    assert len(page.jobs) == 60
    assert {row.runner_type for row in page.jobs} == {Engine.CELERY}, "pgboss is the old name of celery"
    assert {row.user_id for row in page.jobs} == {USER}
    assert [row.task_id for row in page.jobs] == [str(row.job_id) for row in page.jobs]
    assert {status.value: count for (_, status), count in counts.items()} == EXPECTED
    assert (first.step_name, second.step_name) == ("step 1", "step 2"), "in the order of their time"


def test_tables_that_were_taken_over_are_like_new_ones(
    url: str, database_url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(url)

    with psycopg.connect(database_url) as fresh:
        assert _anatomy(connection) == _anatomy(fresh)


def test_each_of_our_tables_has_the_tenants_type(url: str, connection: psycopg.Connection[Any]) -> None:
    migrations.migrate(url)

    # `of_tenant` is whom a token or an action is for: a text that people gave, compared with nothing of `jobs`.
    found = connection.execute(
        "SELECT table_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
        " AND column_name LIKE '%tenant' AND column_name <> 'of_tenant' AND table_name <> 'tenants'"
    ).fetchall()
    assert {table for table, _ in found} == {*TENANT_TABLES}
    assert {type_name for _, type_name in found} == {"uuid"}


def test_an_older_version_without_runner_columns_is_taken_over(empty_database_url: str) -> None:
    create_originals(empty_database_url, has_runner_columns=False)

    migrations.migrate(empty_database_url)

    with psycopg.connect(empty_database_url) as connection:
        assert _rows(connection, "SELECT DISTINCT runner_type FROM jobs") == [("pgboss",)]


def test_tables_without_steps_are_taken_over(url: str, connection: psycopg.Connection[Any]) -> None:
    connection.execute("DROP TABLE job_details")

    migrations.migrate(url)
    assert _takes_a_job(url)
    migrations.downgrade(url, "base")

    assert connection.execute("SELECT to_regclass('job_details')").fetchone() == (None,)


def test_a_large_table_is_rewritten_in_batches(
    url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "BATCH_PAGES", 1)
    create = (
        "INSERT INTO jobs (tenant, type, status, user_id)"
        " SELECT %s, 'x', 'active', %s FROM generate_series(1, 500)"
    )
    connection.execute(create, [TENANT, USER])

    migrations.migrate(url)

    assert _rows(connection, "SELECT DISTINCT status FROM jobs WHERE type = 'x'") == [("processing",)]


def test_what_the_original_writes_meanwhile_is_taken_over_too(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    waits_for_us = (
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE INDEX CONC%'"
        " AND datname = current_database()"
    )
    with psycopg.connect(url) as reader:  # its snapshot is what an index made concurrently waits for
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        migration = threading.Thread(target=migrations.migrate, args=[url])
        migration.start()
        wait_until(lambda: connection.execute(waits_for_us).fetchone() is not None)
        written = connection.execute(
            "INSERT INTO jobs (tenant, type, status, user_id) VALUES (%s, 'late', 'active', %s) RETURNING job_id",
            [TENANT, USER],
        ).fetchone()
        connection.execute("UPDATE jobs SET status = 'failed' WHERE status = 'queued'")
    migration.join(60)

    late = "SELECT job_id, status, task_id = job_id::text FROM jobs WHERE type = 'late'"
    assert written is not None
    assert _rows(connection, late) == [(*written, "processing", True)]
    assert _rows(connection, "SELECT status, count(*) FROM jobs WHERE type <> 'late' GROUP BY 1") == [
        ("completed", 10),
        ("failed", 20),
        ("pending", 10),
        ("processing", 20),
    ]


def test_processes_that_take_over_at_once_do_not_collide(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    program = "import sys; from jobbridge.store.schema.migrate import migrate; migrate(sys.argv[1])"
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda _: run_python(["-c", program, url], env=clean_environment()), range(2)))

    assert [process.returncode for process in ended] == [0, 0], [process.stderr for process in ended]
    assert migrations.current(url) == migrations.heads()
    assert _rows(connection, "SELECT count(*) FROM jobs") == [(60,)]


# -- giving back


def test_the_way_down_gives_the_originals_tables_back(url: str, connection: psycopg.Connection[Any]) -> None:
    before = _shapes(connection)
    rows = [_as_ours(row, status=2) for row in _rows(connection, OLD_JOBS)]

    migrations.migrate(url)
    assert migrations.downgrade(url, "base") == []

    assert _shapes(connection) == before
    assert _rows(connection, OLD_JOBS) == rows
    assert connection.execute("SELECT to_regclass('jobbridge_adopted')").fetchone() == (None,)
    connection.execute(
        "INSERT INTO jobs (tenant, type, status, user_id) VALUES (%s, 'x', 'active', %s)", [TENANT, USER]
    )


def test_what_only_we_know_survives_the_way_down_and_up(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(url)
    database = Database(url)
    recorder, store = JobRecorder(database), JobStore(database)
    done, stopped, planned = (EventsOf(key=new_key(str(TENANT))) for _ in range(3))
    for event in (
        done.submitted(metadata={"n": 1}),
        done.started(),
        done.completed(result={"a": None, "b": [1]}, result_payload=b"\x00\xff"),
        stopped.submitted(),
        stopped.cancelled(reason="wrong month"),
        planned.submitted(run_at=FAR_AHEAD, user_id=USER),
    ):
        assert recorder.record(event).applied
    keys = [done.key, stopped.key, planned.key]
    before = [(store.get(key), store.details(key), store.results_of([key.job_id])) for key in keys]

    migrations.downgrade(url, "base")
    seen_by_the_original = dict(
        _rows(connection, "SELECT job_id, status::text FROM jobs WHERE metadata ? 'jobbridge'")
    )
    migrations.migrate(url)

    assert seen_by_the_original == {
        done.key.job_id: "completed",
        stopped.key.job_id: "failed",
        planned.key.job_id: "queued",
    }
    after = [(store.get(key), store.details(key), store.results_of([key.job_id])) for key in keys]
    database.close()
    assert after == before


def test_what_the_original_changed_in_between_stays_changed(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(url)
    database = Database(url)
    job = EventsOf(key=new_key(str(TENANT)))
    JobRecorder(database).record(job.submitted(run_at=FAR_AHEAD))
    migrations.downgrade(url, "base")
    connection.execute("UPDATE jobs SET status = 'completed' WHERE job_id = %s", [job.key.job_id])

    migrations.migrate(url)

    row = JobStore(database).get(job.key)
    database.close()
    assert row is not None
    assert row.status is JobStatus.COMPLETED


def test_jobs_of_the_system_keep_a_foreign_key_from_being_checked_again(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    migrations.migrate(url)
    assert _takes_a_job(url)

    migrations.downgrade(url, "base")

    keys = (
        "SELECT conname, convalidated FROM pg_constraint WHERE contype = 'f' AND conrelid = 'jobs'::regclass"
    )
    assert _rows(connection, keys) == [("jobs_tenant_fkey", False)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("INSERT INTO jobs (tenant, type, user_id) VALUES (%s, 'x', %s)", [uuid4(), USER])


# -- what is in the way


def test_a_table_in_use_is_named_with_its_user_and_nothing_waits_for_long(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    with psycopg.connect(url, application_name="old app") as other:
        other.execute("SELECT count(*) FROM jobs")
        with pytest.raises(
            DatabaseError, match=r"\(old app, idle in transaction\) has one on jobs"
        ) as raised:
            migrations.migrate(url, "core@head", lock_timeout=timedelta(milliseconds=100))

    assert "Wait until that transaction ends" in raised.value.hint
    assert migrations.current(url) == []
    assert migrations.migrate(url) == migrations.heads()


def test_an_interrupted_take_over_goes_on(url: str, connection: psycopg.Connection[Any]) -> None:
    rows = [_as_ours(row, status=2) for row in _rows(connection, OLD_JOBS)]
    connection.execute("CREATE TABLE elsewhere (id int)")
    connection.execute("CREATE INDEX jobs_newest_idx ON elsewhere (id)")  # takes the name of a late step
    with pytest.raises(DatabaseError):
        migrations.migrate(url, "core@head")
    assert migrations.current(url) == []
    assert _rows(connection, OLD_JOBS), "the original still reads its table"

    connection.execute("DROP TABLE elsewhere")
    migrations.migrate(url)

    assert _rows(connection, OLD_JOBS) == rows


def test_a_view_on_a_column_that_changes_is_named(url: str, connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE VIEW failures AS SELECT job_id FROM jobs WHERE status = 'failed'")

    with pytest.raises(DatabaseError, match="view failures"):
        migrations.migrate(url)

    connection.execute("DROP VIEW failures")
    assert migrations.migrate(url) == migrations.heads()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("ALTER TABLE jobs ADD COLUMN customer text NOT NULL DEFAULT ''; ALTER TABLE jobs ALTER customer DROP DEFAULT",
         "customer"),
        ("ALTER TABLE jobs ALTER metadata TYPE text", "metadata is text, not jsonb"),
        ("ALTER TABLE job_details DROP CONSTRAINT job_details_pkey", "primary key is missing"),
        ("ALTER TABLE jobs DROP COLUMN status", "no column status"),
    ],
)  # fmt: skip
def test_tables_that_are_not_the_originals_are_refused(
    url: str, connection: psycopg.Connection[Any], change: str, reason: str
) -> None:
    connection.execute(change)

    with pytest.raises(DatabaseError, match=reason):
        migrations.migrate(url)


def test_a_role_that_may_not_create_is_told_so_without_a_traceback(
    empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    role = f"guest_{uuid4().hex[:8]}"
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(role)))
    url = empty_database_url.replace("postgresql://jobbridge:", f"postgresql://{role}:", 1)
    url = url.replace(url.split(":")[2].split("@")[0], "x", 1)
    try:
        code = run(["migrate", "--database-url", url])
    finally:
        with psycopg.connect(empty_database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    shown = capsys.readouterr().err
    assert code == 3
    assert f"The role '{role}' may not migrate this database" in shown
    assert "GRANT CREATE ON SCHEMA public" in shown
    assert "Traceback" not in shown


def test_a_tenant_that_is_no_uuid_is_refused_with_a_reason(url: str) -> None:
    migrations.migrate(url)
    database = Database(url)

    with pytest.raises(DatabaseError, match='"acme"'):
        JobRecorder(database).record(_submitted("acme"))

    database.close()


def _submitted(tenant: str) -> Submitted:
    return EventsOf(key=JobKey(tenant=TenantId(tenant), job_id=uuid4())).submitted()


def _takes_a_job(url: str) -> bool:
    database = Database(url)
    try:
        return JobRecorder(database).record(EventsOf().submitted()).applied
    finally:
        database.close()


def _rows(connection: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    return connection.execute(f"{query} ORDER BY 1").fetchall()


def _as_ours(row: tuple[Any, ...], *, status: int) -> tuple[Any, ...]:
    known = "processing" if row[status] == "active" else row[status]
    return (*row[:status], known, *row[status + 1 :])


def _anatomy(connection: psycopg.Connection[Any]) -> list[str]:
    """Without what may differ: the tenant's type, the name of the old engine, and how ids are made."""
    tables = sorted({*TENANT_TABLES} - {"tenants"})
    rows = connection.execute(ANATOMY, {"tables": tables}).fetchall()
    kept = [row.replace("tenant uuid", "tenant text") for (row,) in rows]
    return sorted(row for row in kept if not row.startswith(("jobs.runner_type", "jobs.job_id")))


def _shapes(connection: psycopg.Connection[Any]) -> list[Any]:
    shapes = [originals.describe(connection, table) for table in ("jobs", "job_details")]
    return [(shape.columns, shape.labels, shape.foreign_keys, shape.indexes) for shape in shapes if shape]

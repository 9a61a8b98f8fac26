"""What indexes know jobs by is right whoever writes them: their instant of the end, and how they ended if not well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobbridge.core.events import JobEvent
from jobbridge.core.status import FINAL, UNSUCCESSFUL, JobStatus
from jobbridge.recording import JobRecorder
from jobbridge.store.database import Database
from jobbridge.store.jobs.ends import mark_ends
from jobbridge.store.schema import migrate as migrations
from tests.job_events import FIRST, SECOND, EventsOf

INSERT = """
INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, updated_at)
SELECT 'acme', gen_random_uuid(), status, 'invoice.send', status, 'celery', now() - interval '1 day'
FROM unnest(%s::text[]) AS status
"""
#: Those of which one of the two is not as the status says.
WRONG = """
SELECT task_id, status, completed_at, unsuccessful FROM jobs
WHERE (completed_at IS NULL) = (status = ANY(%s))
   OR unsuccessful IS DISTINCT FROM CASE WHEN status = ANY(%s) THEN status END
"""
ALL = [status.value for status in JobStatus]


def wrong(connection: psycopg.Connection[Any]) -> list[Any]:
    return connection.execute(WRONG, [sorted(FINAL), sorted(UNSUCCESSFUL)]).fetchall()


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_what_is_written_by_hand_is_marked(connection: psycopg.Connection[Any]) -> None:
    connection.execute(INSERT, [ALL])

    assert wrong(connection) == []
    marked = connection.execute("SELECT completed_at = updated_at FROM jobs WHERE status = 'completed'")
    assert marked.fetchall() == [(True,)], "the end of a job that says none is its last change"


@pytest.mark.parametrize("before", ALL)
def test_a_status_that_is_changed_by_hand_is_marked(connection: psycopg.Connection[Any], before: str) -> None:
    for after in ALL:
        connection.execute(INSERT, [[before]])
        connection.execute("UPDATE jobs SET status = %s WHERE status = %s", [after, before])

        assert wrong(connection) == []


@pytest.mark.parametrize(
    "end", ["completed", "failed", "cancelled", "expired", "skipped"], ids=lambda end: str(end)
)
def test_each_event_marks_its_end_itself(
    connection: psycopg.Connection[Any], database_url: str, end: str
) -> None:
    """No trigger has to: it would cost a second write."""
    for trigger in ("jobbridge_mark_end", "jobbridge_mark_new"):
        connection.execute(f"ALTER TABLE jobs DISABLE TRIGGER {trigger}".encode())
    database, job = Database(database_url), EventsOf()
    recorder = JobRecorder(database)
    events: list[JobEvent] = [job.submitted()]
    if end in {"completed", "failed"}:
        events.append(job.started())
    events.append(getattr(job, end)())
    if end != "cancelled":  # which is final
        events.append(job.submitted(SECOND))

    for event in events:
        assert recorder.record(event).applied, event
        assert wrong(connection) == []
    database.close()


def test_a_failure_without_a_row_marks_its_end(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    for trigger in ("jobbridge_mark_end", "jobbridge_mark_new"):
        connection.execute(f"ALTER TABLE jobs DISABLE TRIGGER {trigger}".encode())
    database = Database(database_url)

    JobRecorder(database).record(EventsOf().failed(None, type="invoice.send", task_id="x", delivery=FIRST))

    assert connection.execute("SELECT unsuccessful FROM jobs").fetchall() == [("failed",)]
    assert wrong(connection) == []
    database.close()


def test_what_came_without_triggers_is_marked_afterwards(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SET session_replication_role = replica")
    for _ in range(100):
        connection.execute(INSERT, [ALL])
    connection.execute("RESET session_replication_role")
    assert len(wrong(connection)) == 500

    assert mark_ends(connection) == 500
    assert wrong(connection) == []
    assert mark_ends(connection) == 0


def test_jobs_of_before_the_migration_are_marked_and_it_can_be_taken_again(empty_database_url: str) -> None:
    migrations.migrate(empty_database_url, "0014_relatives")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for _ in range(20):
            connection.execute(INSERT, [[each for each in ALL if each != "waiting"]])  # which is newer
        # It was interrupted before: what it had made is there.
        connection.execute("ALTER TABLE jobs ADD COLUMN unsuccessful text")
        connection.execute(
            "CREATE INDEX jobs_open_idx ON jobs (created_at, job_id, tenant) WHERE completed_at IS NULL"
        )
        connection.execute("CREATE UNIQUE INDEX jobs_key ON jobs (job_id, tenant)")
        migrations.migrate(empty_database_url)

        assert wrong(connection) == []
        assert connection.execute("SELECT count(*) FROM jobs WHERE completed_at IS NULL").fetchone() == (100,)


def test_a_foreign_key_on_jobs_keeps_the_key_and_its_index(empty_database_url: str) -> None:
    migrations.migrate(empty_database_url, "0014_relatives")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE theirs (tenant text, job_id uuid,"
            " FOREIGN KEY (tenant, job_id) REFERENCES jobs (tenant, job_id))"
        )
        migrations.migrate(empty_database_url)

        indexes = dict(
            connection.execute(
                "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'jobs'"
            ).fetchall()
        )
        assert indexes["jobs_pkey"].endswith("(tenant, job_id)")
        assert "jobs_job_id_idx" in indexes
        assert "jobs_external_id_idx" not in indexes
    migrations.downgrade(empty_database_url, "core@-1")
    migrations.migrate(empty_database_url)


def test_what_release_0_1_0_writes_is_marked(connection: psycopg.Connection[Any]) -> None:
    """It knows no `unsuccessful`: neither when a job fails, nor when one is sent once more."""
    connection.execute(INSERT, [["queued"]])
    old = "UPDATE jobs SET status = %s, completed_at = %s, updated_at = clock_timestamp()"
    for status, ended in (("processing", None), ("failed", "now"), ("queued", None), ("completed", "now")):
        connection.execute(sql.SQL(old), [status, ended])
        assert wrong(connection) == []

"""What is past its retention goes with all that is its own; everything else stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jobbridge import Celery
from jobbridge.core.status import JobStatus
from jobbridge.maintenance.pruner import Pruner
from jobbridge.settings import load_settings
from jobbridge.store.jobs.open_jobs import BEGINNING
from jobbridge.store.workers import clear_history, retention
from tests.parity.tasks import make_app

NEVER_STOPPED = threading.Event()
RETENTION = {"JOB_RUNNER_RETENTION_COMPLETED_DAYS": "30", "JOB_RUNNER_RETENTION_FAILED_DAYS": "90"}


def _app(database_url: str, **settings: str) -> Celery:
    return make_app(settings=load_settings({"DATABASE_URL": database_url, **settings}))


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = _app(database_url, **RETENTION)
    yield app
    app.close()


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def _add(
    connection: psycopg.Connection[Any], name: str, status: str, days: float, *, tenant: str = "acme"
) -> None:
    """Make a job of that type that ended (or, if open, was made) so long ago, with a step."""
    connection.execute(
        """
        WITH job AS (
            INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, created_at, updated_at, completed_at,
                singleton_key)
            VALUES (%(tenant)s, gen_random_uuid(), 'x', %(name)s, %(status)s, 'celery',
                now() - %(days)s * interval '1 day' - interval '1 hour', now(),
                CASE WHEN %(status)s = ANY(%(final)s) THEN now() - %(days)s * interval '1 day' END, %(name)s)
            RETURNING tenant, job_id, singleton_key
        ), key AS (
            INSERT INTO job_singletons (tenant, key, job_id) SELECT tenant, singleton_key, job_id FROM job
        )
        INSERT INTO job_details (tenant, job_id, step_name, status)
        SELECT tenant, job_id, 'attempt', 'completed' FROM job
        """,
        {
            "tenant": tenant,
            "name": name,
            "status": status,
            "days": days,
            "final": ["completed", "failed", "cancelled", "expired", "skipped"],
        },
    )


def _left(connection: psycopg.Connection[Any], table: str = "jobs", column: str = "type") -> set[str]:
    query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(column), sql.Identifier(table))
    return {name for (name,) in connection.execute(query)}


def test_jobs_go_by_their_status_and_their_end(app: Celery, connection: psycopg.Connection[Any]) -> None:
    _add(connection, "old", "completed", 31)
    _add(connection, "young", "completed", 29)
    _add(connection, "failed_young", "failed", 89)
    _add(connection, "failed_old", "failed", 91)
    _add(connection, "cancelled", "cancelled", 1000)  # no setting speaks of it
    for status in ("pending", "queued", "scheduled", "retrying", "processing"):
        _add(connection, status, status, 1000)

    counters = Pruner(app).run(NEVER_STOPPED)

    assert (counters["jobs"], counters["steps"]) == (2, 2)
    kept = {"young", "failed_young", "cancelled", "pending", "queued", "scheduled", "retrying", "processing"}
    assert _left(connection) == kept
    assert _left(connection, "job_singletons", "key") == kept
    details = connection.execute("SELECT count(*) FROM job_details").fetchone()
    assert details == (len(kept),)


def test_a_tenants_own_rule_wins(app: Celery, connection: psycopg.Connection[Any]) -> None:
    retention.keep(app.database, "archive", JobStatus.COMPLETED, None)
    retention.keep(app.database, "hasty", JobStatus.CANCELLED, timedelta(days=1))
    for tenant in ("acme", "archive", "hasty"):
        _add(connection, f"{tenant}.completed", "completed", 31, tenant=tenant)
        _add(connection, f"{tenant}.cancelled", "cancelled", 2, tenant=tenant)

    Pruner(app).run(NEVER_STOPPED)

    assert _left(connection) == {"archive.completed", "archive.cancelled", "acme.cancelled"}
    connection.execute("DELETE FROM job_retention WHERE tenant = 'archive'")
    Pruner(app).run(NEVER_STOPPED)
    assert "archive.completed" not in _left(connection)


def test_without_a_setting_all_is_kept_but_keys_whose_time_is_over(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    app = _app(database_url)
    _add(connection, "ancient", "completed", 5000)
    app.keys.set("celery-task-meta-x", b"1", ttl=3600)
    app.keys.set("over", b"1", ttl=3600)
    connection.execute("UPDATE job_keys SET expires_at = now() - interval '1 second' WHERE key = 'over'")

    counters = Pruner(app).run(NEVER_STOPPED)

    assert counters["keys"] == 1
    assert _left(connection) == {"ancient"}
    assert _left(connection, "job_keys", "key") == {"celery-task-meta-x"}
    app.close()


def test_a_pass_goes_on_where_the_run_before_stopped(
    app: Celery, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobbridge.maintenance.pruner.BATCH", 2)
    monkeypatch.setattr("jobbridge.maintenance.pruner.SECONDS", 0.0)
    for number in range(5):
        _add(connection, f"old{number}", "completed", 40 + number)
    pruner = Pruner(app)

    for _ in range(3):
        monkeypatch.setattr(
            "jobbridge.maintenance.pruner.SECONDS", 0.001
        )  # one portion, give or take another
        pruner.run(NEVER_STOPPED)
    monkeypatch.setattr("jobbridge.maintenance.pruner.SECONDS", 5.0)
    pruner.run(NEVER_STOPPED)

    assert _left(connection) == set()
    assert pruner.run(NEVER_STOPPED) == {}


def test_a_job_that_is_sent_again_meanwhile_stays(
    app: Celery, database_url: str, connection: psycopg.Connection[Any]
) -> None:
    _add(connection, "old", "completed", 31)
    with psycopg.connect(database_url) as other:
        other.execute("UPDATE jobs SET status = 'queued', completed_at = NULL")
        pruning_done = threading.Event()

        def prune() -> None:
            Pruner(app).run(NEVER_STOPPED)
            pruning_done.set()

        thread = threading.Thread(target=prune)
        thread.start()
        assert not pruning_done.wait(0.3)  # it waits for the row
        other.commit()
    thread.join(10)

    assert _left(connection) == {"old"}


def test_old_fires_go(app: Celery, connection: psycopg.Connection[Any]) -> None:
    for days in (1, 89, 91):
        connection.execute(
            "INSERT INTO job_schedule_fires (tenant, schedule_id, fire_at, trigger, outcome, fired_at) VALUES ('t',"
            " gen_random_uuid(), now(), 'schedule', 'missed', now() - %s * interval '1 day')",
            [days],
        )

    assert Pruner(app).run(NEVER_STOPPED)["fires"] == 1


def test_schedules_that_were_deleted_long_ago_go(app: Celery, connection: psycopg.Connection[Any]) -> None:
    for name, days in (("kept", None), ("just deleted", 1), ("deleted", 91)):
        connection.execute(
            "INSERT INTO job_schedules (tenant, schedule_id, name, task, kind, spec, overlap, catchup_seconds, engine,"
            " deleted_at) VALUES ('t', gen_random_uuid(), %s, 'x', 'cron', '* * * * *', 'skip', 60, 'celery',"
            " now() - %s * interval '1 day')",
            [name, days],
        )

    Pruner(app).run(NEVER_STOPPED)

    names = {name for (name,) in connection.execute("SELECT name FROM job_schedules").fetchall()}
    assert names == {"kept", "just deleted"}


def test_a_portion_reads_an_index_and_no_table(app: Celery, connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        """
        INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, created_at, completed_at)
        SELECT 't' || n % 100, gen_random_uuid(), 'x', 'a', 'completed', 'celery',
            now() - n * interval '1 minute', now()
        FROM generate_series(1, 50000) AS n
        """
    )
    connection.execute("ANALYZE jobs")
    params = {
        "shortest": "7 days",
        "after_at": "-infinity",
        "after_id": BEGINNING[1],
        "limit": 50,
        "statuses": ["completed"],
        "keeps": [timedelta(days=7)],
        "final": ["completed"],
    }
    plan = "\n".join(
        row for (row,) in connection.execute(sql.SQL("EXPLAIN ") + sql.SQL(retention.PRUNE), params)
    )

    assert "jobs_newest_idx" in plan
    assert "Seq Scan on jobs" not in plan


@pytest.mark.parametrize(
    ("statement", "index"),
    [(clear_history.CLEAR, "jobs_newest_idx"), (clear_history.CLEAR_OF_TENANT, "jobs_tenant_newest_idx")],
)
def test_clearing_history_follows_an_index(
    connection: psycopg.Connection[Any], statement: LiteralString, index: str
) -> None:
    connection.execute(
        "INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, created_at) SELECT 'acme' || n % 500,"
        " gen_random_uuid(), n::text, 'mail', 'completed', 'celery', now() - n * interval '1 minute'"
        " FROM generate_series(1, 50000) AS n"
    )
    connection.execute("ANALYZE jobs")
    params = {
        "before": "infinity",
        "after_at": "-infinity",
        "after_id": uuid4(),
        "limit": 20,
        "statuses": ["completed"],
        "final": ["completed"],
        "tenant": "acme3",
    }
    rows = connection.execute(sql.SQL("EXPLAIN ") + sql.SQL(statement), params).fetchall()
    plan = "\n".join(row for (row,) in rows)

    assert index in plan
    assert "Seq Scan on jobs" not in plan

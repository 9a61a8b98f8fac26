"""Open jobs: who looks for them reads no others, and where they are everywhere some, says so, and is done soon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.store.database import Database
from jobbridge.store.jobs.open_jobs import jobs_under_way, running_jobs
from jobbridge.store.monitor.health import HealthStore

#: 20 tenants, 30 hours: in each of both some that wait, some that run, and more that have ended.
FILL = """
INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue, created_at, updated_at, completed_at)
SELECT 'tenant-' || n % 20, gen_random_uuid(), n::text, 'invoice.send',
    CASE WHEN n / 20 % 10 = 0 THEN 'queued' WHEN n / 20 % 10 = 1 THEN 'processing' ELSE 'completed' END,
    'celery', 'mail',
    date_trunc('hour', now()) - (n % 30) * interval '1 hour', now() - (n % 30) * interval '1 hour',
    CASE WHEN n / 20 % 10 > 1 THEN now() END
FROM generate_series(0, 11999) AS n
"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    with database.connection() as own:
        own.execute(FILL)
    yield database
    database.close()


def test_all_are_counted_where_there_are_not_too_many(database: Database) -> None:
    [group] = HealthStore(database).waiting()

    assert (group.count, group.number, group.is_cut) == (1200, "1200", False)


def test_where_they_are_too_many_some_of_the_newest_and_of_the_oldest_are(database: Database) -> None:
    [group] = HealthStore(database, most=100).waiting()

    assert 50 <= group.count <= 200
    assert group.is_cut
    assert group.number == f"at least {group.count}"
    [(oldest,)] = database.run(
        lambda own: own.execute("SELECT min(updated_at) FROM jobs WHERE status = 'queued'").fetchall()
    )
    assert group.since == oldest


def test_running_jobs_of_the_oldest_hours_are_looked_at_first(database: Database) -> None:
    found = jobs_under_way(database, Engine.CELERY, statuses=[JobStatus.PROCESSING], limit=10, most=1_000)

    [(oldest,)] = database.run(
        lambda own: own.execute("SELECT min(updated_at) FROM jobs WHERE status = 'processing'").fetchall()
    )
    assert len(found) == 10
    assert found[0].updated_at == oldest
    assert found[-1].updated_at - oldest < timedelta(hours=1)


def test_what_a_worker_runs_is_found_among_many_that_wait_and_run(database: Database) -> None:
    insert = """
        INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, worker_number, created_at)
        SELECT 'acme', gen_random_uuid(), 'x', 'invoice.send', 'processing', 'celery', %s, now() - %s * interval '1 day'
        FROM generate_series(1, %s)
    """
    with database.connection() as own:
        own.execute(insert, [1, 3, 300])
        own.execute(insert, [7, 0, 1])

    assert len(running_jobs(database, [7])) == 1
    assert len(running_jobs(database, [1, 7])) == 301

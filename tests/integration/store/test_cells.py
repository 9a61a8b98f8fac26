"""Open jobs that are everywhere: who looks for them reads some, says so, and is done soon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.database import Database
from jobbridge.store.jobs import open_jobs as unattended
from jobbridge.store.jobs.cells import bounds
from jobbridge.store.jobs.open_jobs import jobs_under_way
from jobbridge.store.jobs.running_jobs import running_jobs
from jobbridge.store.monitor.health import HealthStore

#: 20 tenants, 30 hours: in each of both some that wait, some that run, and more that have ended.
FILL = """
INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, queue, created_at, updated_at)
SELECT 'tenant-' || n % 20, gen_random_uuid(), n::text, 'invoice.send',
    CASE WHEN n / 20 % 10 = 0 THEN 'queued' WHEN n / 20 % 10 = 1 THEN 'processing' ELSE 'completed' END,
    'celery', 'mail',
    date_trunc('hour', now()) - (n % 30) * interval '1 hour', now() - (n % 30) * interval '1 hour'
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
    [group] = HealthStore(database, jobs=1_000).waiting()

    assert 50 <= group.count <= 200
    assert group.is_cut
    assert group.number == f"at least {group.count}"
    [(oldest,)] = database.run(
        lambda own: own.execute("SELECT min(updated_at) FROM jobs WHERE status = 'queued'").fetchall()
    )
    assert group.since == oldest


def test_a_single_hour_with_too_many_is_read_so_far_and_no_further(database: Database) -> None:
    with database.connection() as own:
        own.execute("UPDATE jobs SET tenant = 'one', created_at = now() - interval '1 s', status = 'queued'")
    while CountStore(database).fold():
        pass

    assert sum(group.count for group in HealthStore(database, jobs=500).waiting()) == 500


def test_running_jobs_of_the_oldest_hours_are_looked_at_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unattended, "bounds", lambda: bounds(jobs=1_000))

    found = jobs_under_way(database, Engine.CELERY, statuses=[JobStatus.PROCESSING], limit=10)

    [(oldest,)] = database.run(
        lambda own: own.execute("SELECT min(updated_at) FROM jobs WHERE status = 'processing'").fetchall()
    )
    assert len(found) == 10
    assert found[0].updated_at == oldest
    assert found[-1].updated_at - oldest < timedelta(hours=1)


def test_what_a_worker_runs_is_found_behind_many_changes_that_wait_to_be_folded(database: Database) -> None:
    insert = """
        INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, worker_number, created_at)
        SELECT 'acme', gen_random_uuid(), 'x', 'invoice.send', 'processing', 'celery', %s, now() - %s * interval '1 day'
        FROM generate_series(1, %s)
    """
    with database.connection() as own:
        own.execute(insert, [1, 3, 300])
        own.execute(insert, [7, 0, 1])

    assert len(running_jobs(database, [7])) == 1

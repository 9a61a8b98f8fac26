"""The counts of jobs are what SQL would count, at each moment, whoever writes and whether somebody folds or not."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobbridge.core.events import JobEvent
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard import merge_counts
from jobbridge.recording import JobRecorder
from jobbridge.store.counts.counts import FOLD, CountStore
from jobbridge.store.counts.recount import recount
from jobbridge.store.database import Database
from jobbridge.store.schema import migrate as migrations
from jobbridge.store.tenants.tenants import TenantStore
from tests.job_events import EventsOf, any_events, new_key
from tests.support import wait_until

ACME, OTHER = TenantId("acme"), TenantId("other")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def counts(database: Database) -> CountStore:
    return CountStore(database)


def counted(database: Database, tenant: TenantId | None = None) -> dict[tuple[Engine, JobStatus], int]:
    where = "" if tenant is None else "WHERE tenant = %(tenant)s"
    statement = f"SELECT runner_type, status, count(*) FROM jobs {where} GROUP BY 1, 2"
    rows = database.run(lambda own: own.execute(statement, {"tenant": tenant}).fetchall())
    return {(Engine(engine), JobStatus(status)): jobs for engine, status, jobs in rows}


def by_hours(database: Database, tenant: TenantId | None = None) -> dict[tuple[Engine, JobStatus], int]:
    """Give the same from what is kept by the hour, with what is not folded yet."""
    where = "" if tenant is None else "WHERE tenant = %(tenant)s"
    statement = f"""
        SELECT engine, status, sum(jobs) FROM (
            SELECT tenant, engine, status, jobs FROM job_hours
            UNION ALL
            SELECT tenant, engine, status, 1 FROM job_count_changes WHERE status IS NOT NULL
            UNION ALL
            SELECT tenant, engine_before, status_before, -1 FROM job_count_changes WHERE status_before IS NOT NULL
        ) AS each {where} GROUP BY 1, 2 HAVING sum(jobs) <> 0
    """
    rows = database.run(lambda own: own.execute(statement, {"tenant": tenant}).fetchall())
    return {(Engine(engine), JobStatus(status)): int(jobs) for engine, status, jobs in rows}


def rows_of(database: Database, table: str) -> int:
    [(rows,)] = database.run(lambda own: own.execute(f"SELECT count(*) FROM {table}").fetchall())
    return int(rows)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_counts_follow_any_events(database: Database, counts: CountStore, data: st.DataObject) -> None:
    recorder = JobRecorder(database)
    events: list[JobEvent] = [
        event
        for tenant, engine in ((ACME, Engine.CELERY), (OTHER, Engine.TEMPORAL))
        for event in data.draw(any_events(EventsOf(new_key(tenant), engine)))
    ]
    fold_at = data.draw(st.integers(0, len(events)))

    for position, event in enumerate(events):
        if position == fold_at:
            counts.fold(limit=data.draw(st.sampled_from([1, 3, 100])))
        recorder.record(event)

    for tenant in (None, ACME, OTHER):
        assert counts.totals(tenant) == counted(database, tenant)
        assert by_hours(database, tenant) == counted(database, tenant)


def test_what_was_folded_is_gone_and_leaves_no_empty_cell(database: Database, counts: CountStore) -> None:
    recorder, job = JobRecorder(database), EventsOf(new_key(ACME))
    for event in (job.submitted(), job.started()):
        recorder.record(event)
    assert counts.fold() == 2
    recorder.record(job.completed())
    assert counts.fold() == 1
    assert counts.fold() == 0

    assert counts.totals(ACME) == {(Engine.CELERY, JobStatus.COMPLETED): 1}
    assert counts.totals(OTHER) == {}
    assert (rows_of(database, "job_hours"), rows_of(database, "job_count_changes")) == (1, 0)


def test_a_transaction_that_is_rolled_back_counts_nothing(database: Database, counts: CountStore) -> None:
    with database.connection() as own, own.transaction(force_rollback=True):
        JobRecorder(database).record(EventsOf(new_key(ACME)).submitted(), own)

    assert counts.totals() == {}


def test_several_may_fold_while_others_write(database: Database, counts: CountStore) -> None:
    recorder, stopped = JobRecorder(database), threading.Event()

    def fold() -> None:
        while not stopped.is_set():
            counts.fold(limit=7)

    folders = [threading.Thread(target=fold) for _ in range(2)]
    for folder in folders:
        folder.start()
    try:
        for _ in range(60):
            job = EventsOf(new_key(ACME))
            for event in (job.submitted(), job.started(), job.completed()):
                recorder.record(event)
            assert sum(counts.totals().values()) == rows_of(database, "jobs")
    finally:
        stopped.set()
        for folder in folders:
            folder.join()

    assert counts.totals() == counted(database)


def test_a_purge_leaves_no_counts_of_the_tenant(database: Database, counts: CountStore) -> None:
    recorder = JobRecorder(database)
    for tenant in (ACME, OTHER):
        recorder.record(EventsOf(new_key(tenant)).submitted())
    counts.fold()

    TenantStore(database).delete_rows(ACME)

    assert counts.totals(ACME) == {}
    assert counts.totals() == counted(database) != {}


def test_jobs_of_before_the_migration_are_counted(empty_database_url: str) -> None:
    migrations.migrate(empty_database_url, "0007_families")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        _insert(connection, ACME, "failed", 2)
        _insert(connection, OTHER, "completed", 3)
    migrations.migrate(empty_database_url)
    database = Database(empty_database_url)

    assert CountStore(database).totals() == counted(database) != {}
    assert CountStore(database).totals(ACME) == {(Engine.CELERY, JobStatus.FAILED): 2}
    database.close()


def test_jobs_are_counted_once_while_others_write_and_fold(empty_database_url: str) -> None:
    migrations.migrate(empty_database_url, "0007_families")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for status in ("queued", "failed", "completed"):
            _insert(connection, ACME, status, 200)
        migrations.migrate(empty_database_url, "0011_queue_pauses")
        stopped = threading.Event()
        writers = [
            threading.Thread(target=_change_jobs, args=[empty_database_url, seed, stopped])
            for seed in range(2)
        ]
        for writer in writers:
            writer.start()
        database = Database(empty_database_url)
        counts = CountStore(database)
        folder = threading.Thread(target=_fold_until, args=[connection, stopped])
        folder.start()
        for _ in range(3):  # more than once: a migration that died is begun anew
            with psycopg.connect(empty_database_url, autocommit=True) as own:
                recount(own)
        stopped.set()
        for thread in (*writers, folder):
            thread.join()
    migrations.migrate(empty_database_url)

    assert counts.totals() == counted(database)
    assert by_hours(database) == counted(database) != {}
    database.close()


def _change_jobs(url: str, seed: int, stopped: threading.Event) -> None:
    """Make, change and delete jobs, some of them in transactions that are rolled back."""
    chance = random.Random(seed)
    with psycopg.connect(url, autocommit=True) as connection:
        while not stopped.is_set():
            with connection.transaction(force_rollback=chance.random() < 0.2):
                _insert(connection, ACME, "queued", 3)
                some = "SELECT ctid FROM jobs WHERE status = 'queued' ORDER BY random() LIMIT 5 FOR UPDATE SKIP LOCKED"
                connection.execute(f"UPDATE jobs SET status = 'completed' WHERE ctid = ANY(ARRAY({some}))")
                connection.execute(f"DELETE FROM jobs WHERE ctid = ANY(ARRAY({some.replace('5', '1')}))")


def _fold_until(connection: psycopg.Connection[Any], stopped: threading.Event) -> None:
    while not stopped.is_set():
        connection.execute(FOLD, {"limit": 7})


def test_who_may_only_write_jobs_needs_no_rights_on_the_counts(
    database: Database, counts: CountStore
) -> None:
    with database.connection() as owner, owner.transaction(force_rollback=True):
        owner.execute("CREATE ROLE only_jobs")
        owner.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON jobs TO only_jobs")
        owner.execute("SET LOCAL ROLE only_jobs")
        _insert(owner, ACME, "queued", 1)
        owner.execute("UPDATE jobs SET status = 'completed'")
        owner.execute("RESET ROLE")
        assert owner.execute("SELECT status_before, status FROM job_count_changes").fetchall() == [
            (None, "queued"), ("queued", "completed"),
        ]  # fmt: skip


def _insert(connection: psycopg.Connection[Any], tenant: str, status: str, number: int) -> None:
    connection.execute(
        """
        INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type)
        SELECT %s, gen_random_uuid(), 'x', 'invoice.send', %s, 'celery' FROM generate_series(1, %s)
        """,
        [tenant, status, number],
    )


def test_a_dashboard_folds_what_nobody_else_does(
    database: Database, counts: CountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_counts, "MANY", 10)
    monkeypatch.setattr(merge_counts, "PORTION", 20)
    with database.connection() as connection:
        _insert(connection, ACME, "completed", 45)
    folder = merge_counts.Folder(counts)

    folder.wake()
    folder.wake()

    wait_until(lambda: rows_of(database, "job_count_changes") < 10, message="they are folded")
    assert counts.totals() == counted(database)

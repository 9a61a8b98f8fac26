"""Statements that make, delete or truncate many jobs are counted at once, exactly, and leave little to add up."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from jobbridge import bootstrap
from jobbridge.cli.root import run
from jobbridge.core.events import JobEvent
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.diagnosis.upkeep import check_counts
from jobbridge.maintenance.counts import Counter
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.counts import partial_counts
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.counts.flow import BOUNDS, FlowStore, Span, together
from jobbridge.store.database import Database
from jobbridge.store.monitor.search import MonitorStore, Search
from tests.integration.store.test_counts import by_hours, counted, rows_of
from tests.job_events import EventsOf, new_key
from tests.parity.tasks import make_app

ACME = TenantId("tenant-1")

#: Of 7 tenants, over some days, in all statuses; those that ended took 1 to 4 seconds.
FILL = """
INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, created_at, started_at, completed_at)
SELECT 'tenant-' || n %% 7, gen_random_uuid(), n::text, 'invoice.send', (%(statuses)s::text[])[1 + n %% 10],
    CASE WHEN n %% 3 = 0 THEN 'temporal' ELSE 'celery' END, now() - n * interval '1 minute',
    now() - interval '5 seconds',
    CASE WHEN n %% 10 > 4 THEN now() - (1 + n %% 4) * interval '1 second' END
FROM generate_series(1, %(jobs)s) AS n
"""
STATUSES = [
    "pending", "queued", "scheduled", "processing", "retrying", "completed", "failed", "cancelled", "expired",
    "skipped",
]  # fmt: skip


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def counts(database: Database) -> CountStore:
    return CountStore(database)


def fill(connection: psycopg.Connection[Any], jobs: int) -> None:
    connection.execute(FILL, {"jobs": jobs, "statuses": STATUSES})


def merge_all(database: Database, *, limit: int = partial_counts.BATCH) -> int:
    return sum(partial_counts.merge(database, limit=limit))


def test_an_import_is_counted_at_once_and_leaves_nothing_to_fold(
    database: Database, counts: CountStore
) -> None:
    with database.connection() as own:
        fill(own, 5_000)

    assert rows_of(database, "job_count_changes") == 0
    assert counts.totals() == counted(database) != {}
    assert counts.totals(ACME) == counted(database, ACME) != {}
    assert by_hours(database, ACME) == counted(database, ACME)


@pytest.mark.parametrize("jobs", [900, 1_000, 1_001, 3_000])
def test_flow_is_the_same_however_many_jobs_a_statement_makes(
    database: Database, counts: CountStore, jobs: int
) -> None:
    flow = FlowStore(database)
    with database.connection() as own:
        fill(own, jobs)
    ended = {
        known: number
        for known, number in counted(database).items()
        if known[1] in set(map(JobStatus, STATUSES[5:]))
    }
    parts_or_changes = rows_of(database, "job_flow"), rows_of(database, "job_count_changes")
    assert (parts_or_changes[0] > 0) == (jobs > 1_000) == (parts_or_changes[1] == 0)

    def told() -> dict[tuple[Engine, JobStatus], int]:
        return {(cell.engine, cell.status): cell.jobs for cell in flow.totals()}

    times = together(flow.totals())
    assert told() == ended
    assert timedelta(seconds=1) < times.total / times.jobs < timedelta(seconds=4)
    assert times.quantile(1) is not None

    by_hour = together(flow.cells(Span.HOUR, since=datetime.now(UTC) - timedelta(hours=2), tenant=ACME))
    merge_all(database)
    counts.fold()
    assert told() == ended
    assert together(flow.totals()) == times
    assert by_hour == together(
        flow.cells(Span.HOUR, since=datetime.now(UTC) - timedelta(hours=2), tenant=ACME)
    )


def test_what_ended_long_ago_makes_no_cells_that_would_be_pruned(database: Database) -> None:
    with database.connection() as own:
        own.execute(
            FILL.replace("now() - (1", "now() - interval '30 days' - (1"),
            {"jobs": 2_000, "statuses": STATUSES},
        )

    assert database.run(lambda own: own.execute("SELECT DISTINCT span FROM job_flow").fetchall()) == [
        ("day",)
    ]
    assert sum(cell.jobs for cell in FlowStore(database).totals()) == 1_000


def test_parts_are_merged_and_nothing_changes(database: Database, counts: CountStore) -> None:
    with database.connection() as own:
        for _ in range(3):
            fill(own, 1_500)
        own.execute("UPDATE jobs SET status = 'completed' WHERE status = 'queued'")
    counts.fold()
    before, cells = counts.totals(), rows_of(database, "job_hours")

    assert counts.totals() == counted(database)
    assert merge_all(database, limit=100) > 0
    assert merge_all(database) == 0
    assert counts.totals() == before == counted(database)
    assert rows_of(database, "job_hours") < cells / 2
    [(parts, empty)] = database.run(
        lambda own: own.execute(
            "SELECT count(*) FILTER (WHERE part <> 0), count(*) FILTER (WHERE jobs = 0) FROM job_hours"
        ).fetchall()
    )
    assert (parts, empty) == (0, 0)


def test_a_large_delete_and_a_truncate_are_counted(database: Database, counts: CountStore) -> None:
    flow = FlowStore(database)
    with database.connection() as own:
        fill(own, 4_000)
        own.execute("DELETE FROM jobs WHERE tenant <> 'tenant-1'")
    assert rows_of(database, "job_count_changes") == 0
    assert counts.totals() == counted(database) == counts.totals(ACME) != {}

    recorder, job = JobRecorder(database), EventsOf(new_key(ACME))
    events: list[JobEvent] = [job.submitted(), job.started(), job.completed()]
    for event in events:
        recorder.record(event)  # not folded yet, and told all the same
    ended = {(cell.engine, cell.status): cell.jobs for cell in flow.totals()}
    with database.connection() as own:
        own.execute("TRUNCATE jobs")
    assert counts.totals() == counts.totals(ACME) == {}
    assert by_hours(database) == {}
    counts.fold()
    merge_all(database)
    assert counts.totals() == {}
    assert {(cell.engine, cell.status): cell.jobs for cell in flow.totals()} == ended


def test_a_rare_job_of_an_import_is_found_before_and_after_the_merge(database: Database) -> None:
    with database.connection() as own:
        fill(own, 2_000)
        own.execute("UPDATE jobs SET status = 'completed' WHERE status = 'expired' AND task_id <> '1998'")
    search = Search(statuses=[JobStatus.EXPIRED])
    monitor = MonitorStore(database, scan=50, budget=timedelta(minutes=1))

    assert [job.task_id for job in monitor.page(search).jobs] == ["1998"]
    merge_all(database)
    CountStore(database).fold()
    assert [job.task_id for job in monitor.page(search).jobs] == ["1998"]


def test_several_import_fold_and_merge_at_once(
    database_url: str, database: Database, counts: CountStore
) -> None:
    stopped = threading.Event()

    def until_stopped(work: Any) -> None:
        with psycopg.connect(database_url, autocommit=True) as own:
            while not stopped.is_set():
                work(own)

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with psycopg.connect(database_url, autocommit=True) as own:
            for _ in range(12):
                with own.transaction(force_rollback=chance.random() < 0.3):
                    fill(own, chance.choice([3, 1_200]))
                    own.execute(
                        "UPDATE jobs SET status = 'failed' WHERE ctid = ANY(ARRAY("
                        "SELECT ctid FROM jobs WHERE status = 'queued' LIMIT 40 FOR UPDATE SKIP LOCKED))"
                    )
                    own.execute(
                        "DELETE FROM jobs WHERE ctid = ANY(ARRAY("
                        f"SELECT ctid FROM jobs LIMIT {chance.choice([5, 1_100])} FOR UPDATE SKIP LOCKED))"
                    )

    helpers = [
        threading.Thread(target=until_stopped, args=[lambda own: merge_all(database, limit=300)]),
        threading.Thread(target=until_stopped, args=[lambda own: counts.fold(limit=50)]),
    ]
    writers = [threading.Thread(target=write, args=[seed]) for seed in range(3)]
    for thread in (*helpers, *writers):
        thread.start()
    try:
        while any(writer.is_alive() for writer in writers):
            with database.connection() as own, own.transaction():
                own.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                [(jobs,)] = own.execute("SELECT count(*) FROM jobs").fetchall()
                [(told,)] = own.execute(
                    "SELECT (SELECT coalesce(sum(jobs), 0) FROM job_hours)"
                    " + (SELECT count(status) - count(status_before) FROM job_count_changes)"
                ).fetchall()
                assert told == jobs
    finally:
        stopped.set()
        for thread in (*helpers, *writers):
            thread.join()

    assert counts.totals() == counted(database)


def test_the_service_merges_what_imports_added(
    database_url: str, database: Database, counts: CountStore
) -> None:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    with database.connection() as own:
        fill(own, 2_000)

    assert Counter(app).run(threading.Event())["parts"] > 0
    assert counts.totals() == counted(database)
    app.close()


def test_the_migration_knows_the_same_bounds(database: Database) -> None:
    [(source,)] = database.run(
        lambda own: own.execute(
            "SELECT prosrc FROM pg_proc WHERE proname = 'jobbridge_count_new_jobs'"
        ).fetchall()
    )

    assert f"{{{','.join(map(str, BOUNDS))}}}" in source


def test_what_was_written_without_triggers_is_counted_on_demand(
    database_url: str,
    database: Database,
    counts: CountStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    with database.connection() as own:
        own.execute("SET session_replication_role = replica")
        fill(own, 15_000)
        own.execute("RESET session_replication_role")
    assert counts.totals() == {}
    app = bootstrap.default_app()
    assert [check.is_good for check in check_counts(app)] == [True], "Postgres has not looked yet"
    with database.connection() as own:
        own.execute("ANALYZE public.jobs")
    [check] = check_counts(app)
    assert not check.is_good
    assert "jobs recount" in check.hint

    assert run(["jobs", "recount"]) == 0
    assert "were wrong" in capsys.readouterr().out
    assert [check.is_good for check in check_counts(app)] == [True]
    assert run(["jobs", "recount"]) == 0
    assert "all counts were right" in capsys.readouterr().out
    assert counts.totals() == counted(database) != {}

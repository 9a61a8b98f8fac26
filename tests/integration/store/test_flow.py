"""What started and ended in each hour is what the events said, whoever folds, prunes or purges."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from jobbridge.core.events import JobEvent
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.maintenance.counts import Counter
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.counts import flow
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.counts.flow import (
    BOUNDS,
    DAYS_KEPT,
    HOURS_KEPT,
    STARTED,
    Cell,
    FlowStore,
    Span,
    Times,
    together,
)
from jobbridge.store.database import Database
from jobbridge.store.schema import migrate as migrations
from jobbridge.store.tenants.tenants import TenantStore
from tests.job_events import FIRST, LONG_AGO, SECOND, EventsOf, any_events, new_key
from tests.parity.tasks import make_app

ACME, OTHER = TenantId("acme"), TenantId("other")

#: What the trigger is to see, seen by another one: each first start and each end.
WITNESS = """
CREATE TABLE witness (tenant text, engine text, status text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.started_at IS NOT NULL AND old.started_at IS NULL THEN
        INSERT INTO witness VALUES (new.tenant, new.runner_type, 'processing');
    END IF;
    IF new.completed_at IS NOT NULL AND old.completed_at IS NULL THEN
        INSERT INTO witness VALUES (new.tenant, new.runner_type, new.status);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER see AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION see()
"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> FlowStore:
    return FlowStore(database)


def told(cells: list[Cell]) -> dict[tuple[Engine, JobStatus], int]:
    tally: Tally[tuple[Engine, JobStatus]] = Tally()
    for cell in cells:
        tally[cell.engine, cell.status] += cell.jobs
    return dict(tally)


def of_day(store: FlowStore, tenant: TenantId | None = None) -> dict[tuple[Engine, JobStatus], int]:
    return told(store.cells(Span.DAY, since=LONG_AGO, tenant=tenant))


def set_times(database: Database, **columns: str) -> None:
    """Set columns of all jobs to SQL expressions, as if that had always been so."""
    changes = sql.SQL(", ").join(
        sql.SQL("{} = " + expression).format(sql.Identifier(name)) for name, expression in columns.items()
    )
    database.run(lambda own: own.execute(sql.SQL("UPDATE jobs SET {}").format(changes)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_start_and_each_end_is_told_once(
    database: Database, store: FlowStore, data: st.DataObject
) -> None:
    database.run(
        lambda own: own.execute(
            "DROP TABLE IF EXISTS witness; DROP FUNCTION IF EXISTS see CASCADE;"
            " TRUNCATE jobs, job_flow, job_flow_totals, job_count_changes;" + WITNESS
        )
    )
    recorder, counts = JobRecorder(database), CountStore(database)
    events: list[JobEvent] = [
        event
        for tenant, engine in ((ACME, Engine.CELERY), (OTHER, Engine.TEMPORAL))
        for event in data.draw(any_events(EventsOf(new_key(tenant), engine)))
        # What is made and starts, or ends, in one statement is told by the trigger for INSERT; the witness has none.
        if not (event.__class__.__name__ == "Failed" and getattr(event, "type", None))
    ]
    fold_at = data.draw(st.integers(0, len(events)))

    for position, event in enumerate(events):
        if position == fold_at:
            counts.fold(limit=data.draw(st.sampled_from([1, 3, 100])))
        recorder.record(event)

    for tenant in (None, ACME, OTHER):
        where = "" if tenant is None else "WHERE tenant = %(tenant)s"
        statement = f"SELECT engine, status, count(*) FROM witness {where} GROUP BY 1, 2"
        rows = database.run(
            lambda own, of=tenant, asked=statement: own.execute(asked, {"tenant": of}).fetchall()  # type: ignore[misc]
        )
        seen = {(Engine(engine), JobStatus(status)): jobs for engine, status, jobs in rows}
        assert of_day(store, tenant) == seen
        if tenant is None:
            assert told(store.totals()) == seen


def test_it_tells_how_long_jobs_waited_and_took(database: Database, store: FlowStore) -> None:
    recorder, job = JobRecorder(database), EventsOf(new_key(ACME))
    recorder.record(job.submitted())
    set_times(database, created_at="now() - interval '4 s'", updated_at="now() - interval '4 s'")
    recorder.record(job.started())
    set_times(database, started_at="now() - interval '90 s'")
    recorder.record(job.completed())

    for _ in range(2):
        waited, took = sorted(store.totals(), key=lambda cell: cell.status is not STARTED)
        assert (waited.status, took.status) == (STARTED, JobStatus.COMPLETED)
        for cell, seconds in ((waited, 4), (took, 90)):
            assert abs(cell.times.total - timedelta(seconds=seconds)) < timedelta(seconds=1)
            median = cell.times.quantile(0.5)
            assert median is not None
            assert 0.8 * seconds < median.total_seconds() < 1.25 * seconds
        CountStore(database).fold()


@pytest.mark.parametrize(
    ("engine", "columns", "seconds"),
    [
        (Engine.CELERY, {}, 50),
        (Engine.CELERY, {"run_at": "now() - interval '20 s'"}, 20),
        (Engine.CELERY, {"run_at": "now() + interval '20 s'"}, 0),
        # Accepted since: it waits from its creation on.
        (Engine.TEMPORAL, {"created_at": "now() - interval '70 s'"}, 70),
        # Sent again after its end: not from its creation on.
        (Engine.TEMPORAL, {"created_at": "now() - interval '9 days'", "attempt": "1"}, 50),
        (Engine.CELERY, {"created_at": "now() - interval '9 days'"}, 50),
    ],
)
def test_a_job_waits_from_when_it_was_sent_and_due(
    database: Database, store: FlowStore, engine: Engine, columns: dict[str, str], seconds: int
) -> None:
    recorder, job = JobRecorder(database), EventsOf(new_key(ACME), engine)
    recorder.record(job.submitted())
    fifty = "now() - interval '50 s'"
    set_times(database, **({"created_at": fifty, "updated_at": fifty} | columns))

    recorder.record(job.started())

    [cell] = store.totals()
    assert abs(cell.times.total.total_seconds() - seconds) < 1


def test_a_job_that_runs_again_ends_twice_and_one_that_never_ran_has_no_time(
    database: Database, store: FlowStore
) -> None:
    recorder, job = JobRecorder(database), EventsOf(new_key(ACME))
    for event in (
        job.submitted(FIRST), job.started(FIRST), job.failed(), job.submitted(SECOND), job.started(SECOND),
        job.completed(2), EventsOf(new_key(ACME)).failed(None, type="x", task_id="x"),
    ):  # fmt: skip
        assert recorder.record(event).applied

    assert of_day(store) == {
        (Engine.CELERY, STARTED): 2,
        (Engine.CELERY, JobStatus.FAILED): 2,
        (Engine.CELERY, JobStatus.COMPLETED): 1,
    }
    failed = next(cell for cell in store.totals() if cell.status is JobStatus.FAILED)
    assert (failed.jobs, failed.times.jobs) == (2, 1)


def test_history_outlives_its_jobs_and_a_purge_takes_a_tenants_but_not_the_totals(
    database: Database, store: FlowStore
) -> None:
    recorder = JobRecorder(database)
    for tenant in (ACME, OTHER):
        job = EventsOf(new_key(tenant))
        for event in (job.submitted(), job.started(), job.completed()):
            recorder.record(event)
    everything = told(store.totals())
    database.run(lambda own: own.execute("DELETE FROM jobs WHERE tenant = 'other'"))
    assert of_day(store, OTHER) == {(Engine.CELERY, STARTED): 1, (Engine.CELERY, JobStatus.COMPLETED): 1}

    TenantStore(database).delete_rows(ACME)

    assert of_day(store, ACME) == {}
    assert told(store.totals()) == of_day(store) == everything


def test_totals_only_grow_while_several_fold_and_others_write(database: Database, store: FlowStore) -> None:
    recorder, stopped = JobRecorder(database), threading.Event()

    def fold() -> None:
        counts = CountStore(database)
        while not stopped.is_set():
            counts.fold(limit=5)

    folders = [threading.Thread(target=fold) for _ in range(2)]
    for folder in folders:
        folder.start()
    try:
        for ended in range(40):
            job = EventsOf(new_key(ACME))
            for event in (job.submitted(), job.started(), job.completed()):
                recorder.record(event)
            assert told(store.totals()) == {
                (Engine.CELERY, STARTED): ended + 1,
                (Engine.CELERY, JobStatus.COMPLETED): ended + 1,
            }
    finally:
        stopped.set()
        for folder in folders:
            folder.join()


def test_what_is_past_its_time_goes_and_the_totals_only_grow(database_url: str, database: Database) -> None:
    store, counts = FlowStore(database), CountStore(database)
    now = datetime.now(UTC)
    ages = [timedelta(0), HOURS_KEPT + timedelta(hours=2), DAYS_KEPT + timedelta(days=2)]
    database.run(lambda own: _insert_ended(own, [now - age for age in ages]))
    before = store.totals()
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))

    done = Counter(app).run(threading.Event())

    app.close()
    assert done == {"changes": 3, "cells": 3}
    assert len(store.cells(Span.HOUR, since=LONG_AGO, tenant=ACME)) == 1
    assert len(store.cells(Span.DAY, since=LONG_AGO, tenant=ACME)) == 2
    assert len(store.cells(Span.HOUR, since=LONG_AGO)) == 1
    assert store.totals() == before
    assert counts.fold() == 0


def test_it_says_since_when_if_there_are_older_jobs(database: Database, store: FlowStore) -> None:
    assert store.recorded_since() is None
    database.run(lambda own: _insert_ended(own, [datetime.now(UTC)]))
    CountStore(database).fold()
    assert store.recorded_since() is None

    set_times(database, created_at="now() - interval '9 days'")

    since = store.recorded_since()
    assert since is not None
    assert since == Span.DAY.begin(datetime.now(UTC))
    assert store.recorded_since(ACME) == since
    assert store.recorded_since(OTHER) is None


def test_the_month_before_the_migration_is_told_from_the_jobs(empty_database_url: str) -> None:
    migrations.migrate(empty_database_url, "0007_families")
    database = Database(empty_database_url)
    now = datetime.now(UTC)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        _insert_ended(connection, [now - timedelta(days=days) for days in (1, 5, 20, 50)])
        migrations.migrate(empty_database_url, "0008_counts")
        _insert_ended(connection, [datetime.now(UTC)])
        migrations.migrate(empty_database_url)
        _insert_ended(connection, [datetime.now(UTC)])
        for _ in range(2):
            store = FlowStore(database)
            for tenant in (None, ACME):
                days = store.cells(Span.DAY, since=LONG_AGO, tenant=tenant)
                assert told([cell for cell in days if cell.status is not STARTED]) == {
                    (Engine.CELERY, JobStatus.COMPLETED): 5
                }
                assert sum(cell.jobs for cell in store.cells(Span.HOUR, since=LONG_AGO, tenant=tenant)) == 7
            assert told(store.totals()) == {(Engine.CELERY, JobStatus.COMPLETED): 2}
            migrations.downgrade(empty_database_url, "core@0011_queue_pauses")
            migrations.migrate(empty_database_url)
    database.close()


def test_few_changes_gather_before_they_are_folded(database_url: str, database: Database) -> None:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    counter, counts = Counter(app), CountStore(database)
    counter.run(threading.Event())
    database.run(lambda own: _insert_ended(own, [datetime.now(UTC)] * 5))

    assert counter.run(threading.Event()) == {}
    database.run(lambda own: _insert_ended(own, [datetime.now(UTC)] * 1000))
    assert counter.run(threading.Event()) == {"changes": 1005}

    app.close()
    assert sum(counts.totals().values()) == 1005


def test_a_value_that_is_no_tenant_finds_nothing(adopted_url: str) -> None:
    database = Database(adopted_url)

    assert FlowStore(database).cells(Span.DAY, since=LONG_AGO, tenant=TenantId("no uuid")) == []
    assert CountStore(database).totals(TenantId("no uuid")) == {}
    database.close()


@pytest.fixture
def adopted_url(database_url: str) -> str:
    """A database where a tenant is a uuid, as in those that were taken over."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in ("job_counts", "job_hours", "job_count_changes", "job_flow"):
            connection.execute(
                sql.SQL("ALTER TABLE {} ALTER COLUMN tenant TYPE uuid USING tenant::uuid").format(
                    sql.Identifier(table)
                )
            )
    return database_url


def test_questions_follow_an_index(database: Database) -> None:
    def prepare(own: Any) -> None:
        own.execute(
            """
            INSERT INTO job_flow (tenant, span, at, engine, status, bucket, jobs, ms)
            SELECT 't' || n % 100, 'hour', date_trunc('hour', now()) - n / 500 * interval '1 hour', 'celery',
                'completed', n / 100 % 5, 1, 1
            FROM generate_series(1, 30000) AS n ON CONFLICT DO NOTHING
            """
        )
        own.execute("ANALYZE job_flow")

    database.run(prepare)
    since = datetime.now(UTC) - timedelta(hours=24)

    asked = {"span": "hour", "since": since, "tenant": "t1"}
    assert "Seq Scan on job_flow" not in _plan(database, flow.CELLS_OF_TENANT, asked)
    assert "job_flow_age_idx" in _plan(
        database, flow.PRUNE, {"span": "hour", "kept": "59 hours", "limit": 10}
    )


# -- times


@given(st.lists(st.integers(0, 2 * BOUNDS[-1]), min_size=1, max_size=60), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_wrong_by_a_step_at_most(milliseconds: list[int], share: float) -> None:
    buckets = Tally(sum(bound < ms for bound in BOUNDS) for ms in milliseconds)
    exact = sorted(milliseconds)[max(0, -(-int(share * 100) * len(milliseconds) // 100) - 1)]

    found = Times(buckets, timedelta(0)).quantile(share)

    assert found is not None
    if exact <= BOUNDS[-1]:
        assert exact / 1.6 - 1 <= found / timedelta(milliseconds=1) <= exact * 1.6 + 1
    else:
        assert found == timedelta(milliseconds=BOUNDS[-1])


def test_the_histogram_of_prometheus_is_cumulative() -> None:
    cells = [
        Cell(
            at=LONG_AGO,
            engine=engine,
            status=JobStatus.COMPLETED,
            jobs=4,
            times=Times({0: 1, 59: 2, 60: 1}, timedelta(2)),
        )
        for engine in Engine
    ]

    times = together(cells)

    assert (times.jobs, times.total) == (8, timedelta(4))
    assert times.up_to()[0] == (0.001, 2)
    assert times.up_to()[-2:] == [(BOUNDS[-1] / 1000, 6), (float("inf"), 8)]
    assert Times({}, timedelta(0)).quantile(0.5) is None


def test_the_statements_know_the_same_bounds() -> None:
    assert f"{{{','.join(map(str, BOUNDS))}}}" in flow.CELLS
    assert JobStatus.PROCESSING not in FINAL


def _plan(database: Database, statement: str, params: dict[str, Any]) -> str:
    rows = database.run(lambda own: own.execute(sql.SQL("EXPLAIN ") + sql.SQL(statement), params).fetchall())
    return "\n".join(row for (row,) in rows)


def _insert_ended(connection: psycopg.Connection[Any], moments: list[datetime]) -> None:
    connection.execute(
        """
        INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, created_at, started_at, completed_at)
        SELECT 'acme', gen_random_uuid(), 'x', 'invoice.send', 'completed', 'celery', at - interval '2 s',
            at - interval '1 s', at
        FROM unnest(%s::timestamptz[]) AS at
        """,
        [moments],
    )

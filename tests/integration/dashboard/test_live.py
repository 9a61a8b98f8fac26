"""Live events: what changes is told, also when it comes late or a connection is lost; and nobody pays for nobody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jobbridge import Celery
from jobbridge.core.keys import JobKey
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dashboard.live.broadcaster import Live
from jobbridge.recording import JobRecorder
from jobbridge.store.monitor import change_log as live
from tests.integration.dashboard.live_support import (
    ACME,
    OTHER,
    QUICK,
    Watch,
    count,
    in_thread,
    open_app,
    run,
    some,
    status,
)
from tests.job_events import EventsOf, new_key
from tests.streams import streaming
from tests.support import wait_until


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    with open_app(database_url) as app:
        yield app


@pytest.fixture
def recorder(app: Celery) -> JobRecorder:
    return JobRecorder(app.database)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


# -- nothing is lost


def test_every_final_state_is_told_whoever_writes_and_in_whatever_order_they_commit(
    app: Celery, recorder: JobRecorder, connection: psycopg.Connection[Any], database_url: str
) -> None:
    def write(seed: int) -> None:
        """Several jobs in one transaction, and one in five of those is rolled back."""
        choose = random.Random(seed)
        with psycopg.connect(database_url) as own:
            for _ in range(12):
                jobs = [EventsOf(new_key(choose.choice([ACME, OTHER]))) for _ in range(3)]
                for job in jobs:
                    recorder.record(job.submitted(), own)
                for job in jobs:
                    recorder.record(job.started(), own)
                    recorder.record(choose.choice([job.completed(), job.failed()]), own)
                own.rollback() if choose.random() < 0.2 else own.commit()

    async def test(watch: Watch) -> None:
        async with watch.open() as everything, watch.open(tenant=ACME) as mine:
            await asyncio.gather(*(in_thread(lambda seed=seed: write(seed)) for seed in range(4)))
            rows = connection.execute("SELECT job_id::text, tenant, status FROM jobs").fetchall()
            assert len(rows) > 60
            await everything.until(lambda: everything.statuses == {job: status for job, _, status in rows})
            await mine.until(
                lambda: mine.statuses == {job: status for job, tenant, status in rows if tenant == ACME}
            )

    run(app, test)


def test_a_commit_that_comes_late_is_told_all_the_same(
    app: Celery, recorder: JobRecorder, database_url: str
) -> None:
    async def test(watch: Watch) -> None:
        async with watch.open() as stream:
            with psycopg.connect(database_url) as own:
                late = EventsOf(new_key(ACME))
                recorder.record(late.submitted(), own)
                others = [some(recorder) for _ in range(5)]
                await stream.until(lambda: all(status(job, stream) for job in others))
                assert status(late, stream) is None
                own.commit()
            await stream.until(lambda: status(late, stream) == "queued")

    run(app, test)


def test_a_stream_is_open_when_older_transactions_are_over(
    app: Celery, recorder: JobRecorder, database_url: str
) -> None:
    async def test(watch: Watch) -> None:
        with psycopg.connect(database_url) as own:
            recorder.record(EventsOf(new_key(ACME)).submitted(), own)
            async with streaming(watch.dashboard, "/events", headers=watch.token()) as stream:
                await wait_for_a_watcher(database_url)
                some(recorder)  # seen by whoever reads after `open`
                assert stream.names == []
                own.commit()
                await stream.until_event("open")
                some(recorder)
                await stream.until_event("jobs")
                assert "reset" not in stream.names

    run(app, test, pace=replace(QUICK, open_within=60))


def test_a_stream_that_could_not_wait_so_long_is_told_to_read_anew(
    app: Celery, recorder: JobRecorder, database_url: str
) -> None:
    async def test(watch: Watch) -> None:
        with psycopg.connect(database_url) as own:
            recorder.record(EventsOf(new_key(ACME)).submitted(), own)
            async with watch.open() as stream:
                job = some(recorder)
                await stream.until(lambda: status(job, stream) == "queued")
                assert "reset" not in stream.names
                own.commit()
                await stream.until_event("reset")

    run(app, test, pace=replace(QUICK, open_within=0.1))


async def wait_for_a_watcher(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as own:
        while not await (await own.execute("SELECT FROM job_watchers")).fetchall():
            await asyncio.sleep(0.02)


def test_a_lost_connection_is_made_anew_and_told(
    app: Celery, recorder: JobRecorder, connection: psycopg.Connection[Any]
) -> None:
    # Of this database: dashboards of other tests, on theirs, listen for some time after their last viewer has gone.
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE '% live' AND datname = current_database()"
    )

    async def test(watch: Watch) -> None:
        async with watch.open() as stream:
            assert len(await in_thread(lambda: connection.execute(kill).fetchall())) == 1
            some(recorder)
            await stream.until_event("reset")
            job = some(recorder)
            await stream.until(lambda: status(job, stream) == "queued")

    run(app, test)


def test_one_that_sleeps_is_woken(
    app: Celery, recorder: JobRecorder, connection: psycopg.Connection[Any]
) -> None:
    def is_asleep() -> bool:
        return connection.execute("SELECT is_asleep FROM job_watchers").fetchall() == [(True,)]

    async def test(watch: Watch) -> None:
        async with watch.open() as stream:
            for _ in range(2):
                await in_thread(lambda: wait_until(is_asleep))
                job = some(recorder)
                await stream.until(lambda job=job: status(job, stream) == "queued", within=5)

    run(app, test, pace=replace(QUICK, backstop=60.0))


def test_two_dashboards_are_told_both(app: Celery, recorder: JobRecorder) -> None:
    async def test(watch: Watch) -> None:
        other = make_dashboard(app)
        other.state.dashboard.live = Live(app.database, pace=QUICK)
        async with watch.open() as here, streaming(other, "/events", headers=watch.token()) as there:
            await there.until_event("open")
            job = some(recorder)
            for stream in (here, there):
                await stream.until(lambda stream=stream: status(job, stream) == "queued")
        other.state.dashboard.live.here().stop()

    run(app, test)


def test_changes_are_told_whatever_their_kind(app: Celery, recorder: JobRecorder) -> None:
    async def test(watch: Watch) -> None:
        async with watch.open() as stream:
            job = EventsOf(JobKey(tenant=ACME, job_id=uuid4()))
            for event, expected in [
                (job.submitted(), JobStatus.QUEUED),
                (job.started(), JobStatus.PROCESSING),
                (job.requeued(), JobStatus.QUEUED),
                (job.cancelled(), JobStatus.CANCELLED),
            ]:
                recorder.record(event)
                await stream.until(lambda expected=expected: status(job, stream) == expected)

    run(app, test)


def test_who_could_not_renew_its_row_is_told_to_read_anew(
    app: Celery, recorder: JobRecorder, connection: psycopg.Connection[Any]
) -> None:
    async def test(watch: Watch) -> None:
        async with watch.open() as stream:
            connection.execute("UPDATE job_watchers SET until = now() - interval '1 second'")
            some(recorder)
            await stream.until_event("reset")
            job = some(recorder)
            await stream.until(lambda: status(job, stream) == "queued")
            assert count(connection, "job_watchers") == 1

    run(app, test, pace=replace(QUICK, renew=0.2))


def test_an_import_that_is_too_large_to_be_told_is_a_reset(
    app: Celery, recorder: JobRecorder, connection: psycopg.Connection[Any]
) -> None:
    async def test(watch: Watch) -> None:
        async with watch.open() as stream:
            # What an import of as many leaves that was rolled back.
            connection.execute("SELECT setval('job_events_event_id_seq', %s)", [live.MOST_GAPS + 100])
            some(recorder)
            await stream.until_event("reset")
            job = some(recorder)
            await stream.until(lambda: status(job, stream) == "queued")

    run(app, test)


# -- nobody pays when nobody looks


def test_nothing_is_written_while_nobody_watches(
    app: Celery, recorder: JobRecorder, connection: psycopg.Connection[Any]
) -> None:
    some(recorder)
    assert count(connection, "job_events") == 0

    async def test(watch: Watch) -> None:
        async with watch.open() as stream:
            job = some(recorder)
            await stream.until(lambda: status(job, stream))
        await in_thread(lambda: wait_until(lambda: count(connection, "job_watchers") == 0))
        before = count(connection, "job_events")
        some(recorder)
        assert count(connection, "job_events") == before

    run(app, test)


def test_what_everybody_read_is_pruned_and_what_is_to_come_is_not(
    app: Celery, recorder: JobRecorder, connection: psycopg.Connection[Any], database_url: str
) -> None:
    async def test(watch: Watch) -> None:
        async with watch.open() as stream:
            with psycopg.connect(database_url) as own:
                late = EventsOf(new_key(ACME))
                recorder.record(late.submitted(), own)
                for _ in range(3):
                    some(recorder)
                await in_thread(lambda: wait_until(lambda: count(connection, "job_events") == 0))
                own.commit()
            await stream.until(lambda: status(late, stream) == "queued")

    run(app, test, pace=replace(QUICK, prune=0.05, kept=0.1))


def test_who_may_write_jobs_needs_no_further_grants(
    app: Celery, connection: psycopg.Connection[Any], database_url: str
) -> None:
    role = f"writer_{uuid4().hex}"
    connection.execute(f"CREATE ROLE {role}")
    connection.execute(f"GRANT SELECT, INSERT, UPDATE ON jobs TO {role}")
    insert = (
        "INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type)"
        " VALUES ('acme', gen_random_uuid(), 'x', 'x', 'queued', 'celery')"
    )

    async def test(watch: Watch) -> None:
        async with watch.open() as stream:
            with psycopg.connect(database_url) as own:
                own.execute(f"SET ROLE {role}")
                own.execute(insert)
                own.commit()
            await stream.until(lambda: len(stream.jobs) == 1)

    try:
        run(app, test)
    finally:
        connection.execute(f"DROP OWNED BY {role}")
        connection.execute(f"DROP ROLE {role}")


def test_what_is_asked_while_jobs_change_follows_an_index(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        """
        INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type)
        SELECT 't' || n % 100, gen_random_uuid(), 'x', 'invoice.send', 'completed', 'celery'
        FROM generate_series(1, 20000) AS n
        """
    )
    connection.execute(
        "INSERT INTO job_events SELECT n, gen_random_uuid() FROM generate_series(1, 50000) AS n"
    )
    connection.execute("ANALYZE jobs, job_events")
    questions = [
        (live.READ, {"after": 49_000, "gaps": [17, 18], "needs_bound": True, "limit": live.LOOK}),
        (live.MISSED, {"after": 48_000, "upto": 49_000, "limit": 100}),
        (live.PRUNE, {"upto": 1_000, "gaps": [17], "limit": live.PRUNE_BATCH}),
        (live.JOBS, {"job_ids": [uuid4() for _ in range(100)]}),
    ]
    for statement, params in questions:
        explain = sql.SQL("EXPLAIN ") + sql.SQL(statement)  # type: ignore[arg-type]  # constants
        plan = "\n".join(line for (line,) in connection.execute(explain, params).fetchall())
        assert "Seq Scan" not in plan, plan

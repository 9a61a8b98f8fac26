"""Live events: what changes is told to those who may see it, also when it comes late; and nobody pays for nobody."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import psycopg
import pytest
import uvicorn
from psycopg import sql

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.application import RULES, make_dashboard
from jobbridge.dashboard.live.broadcaster import Live
from jobbridge.dashboard.live.reader import Pace
from jobbridge.dashboard.serving import Server
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store import live
from jobbridge.store.access import AccessStore
from tests.job_events import EventsOf, new_key
from tests.parity.tasks import make_app
from tests.streams import Stream, streaming
from tests.support import wait_until

ACME, OTHER = TenantId("acme"), TenantId("other-tenant-xyz")
STREAMS = [rule for rule in RULES if rule.is_stream]

#: As in use, but a test does not wait for what takes its time.
QUICK = Pace(look=0.02, quiet=0.1, backstop=0.2, counts=0.05, linger=0.1, reconnect=(0.05, 0.2))


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def recorder(app: Celery) -> JobRecorder:
    return JobRecorder(app.database)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


def run(app: Celery, test: Callable[[Watch], Awaitable[None]], *, pace: Pace = QUICK, **limits: int) -> None:
    """Run a test in an event loop of its own, with a dashboard that keeps that pace."""

    async def in_loop() -> None:
        dashboard = make_dashboard(app)
        dashboard.state.dashboard.live = Live(
            app.database, **{"most": 100, "most_each": 100} | limits, pace=pace
        )
        try:
            await test(Watch(app, dashboard))
        finally:
            dashboard.state.dashboard.live.here().stop()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 10)

    asyncio.run(in_loop())


class Watch:
    """Opens streams of a dashboard."""

    def __init__(self, app: Celery, dashboard: Any) -> None:
        self.dashboard = dashboard
        self._access = AccessStore(app.database)

    def token(self, tenant: TenantId | None = None) -> dict[str, str]:
        token, _ = self._access.create(str(uuid4()), Role.VIEWER, tenant=tenant)
        return {"authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def open(
        self, query: str = "", *, tenant: TenantId | None = None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[Stream]:
        """Open a stream with a token of its own, and wait until it tells of changes."""
        sent = self.token(tenant) | (headers or {})
        async with streaming(self.dashboard, f"/events{query}", headers=sent) as stream:
            await stream.until_event("open")
            yield stream

    async def refusal(self, query: str, *, tenant: TenantId | None = None) -> tuple[int, str]:
        async with streaming(self.dashboard, f"/events{query}", headers=self.token(tenant)) as stream:
            await stream.until(lambda: stream.has_ended)
            return stream.status, stream.text


def some(recorder: JobRecorder, tenant: TenantId = ACME, **more: Any) -> EventsOf:
    job = EventsOf(new_key(tenant))
    recorder.record(job.submitted(**more))
    return job


def status(job: EventsOf, stream: Stream) -> str | None:
    return stream.statuses.get(str(job.key.job_id))


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def count(connection: psycopg.Connection[Any], table: str) -> int:
    [(rows,)] = connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
    ).fetchall()
    return int(rows)


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
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobbridge live events'"

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


# -- who is told what


def test_a_token_of_one_tenant_is_told_nothing_of_another(app: Celery, recorder: JobRecorder) -> None:
    theirs = some(recorder, OTHER, type="type-of-others")

    async def test(watch: Watch) -> None:
        for query in ("", f"?tenant={OTHER}", "?type=type-of-others", "?queue=celery&status=failed"):
            async with watch.open(query, tenant=ACME) as mine, watch.open(f"?tenant={OTHER}") as others:
                job = some(recorder, OTHER, type="type-of-others")
                recorder.record(job.started())
                recorder.record(job.failed(error="error-of-others"))
                await others.until(lambda job=job: status(job, others) == "failed")
                await others.until_event("counts")
                own = some(recorder, ACME, type="type-of-others")
                recorder.record(own.started())
                recorder.record(own.failed(error="mine"))
                await mine.until(lambda own=own: status(own, mine) == "failed")
                await mine.until_event("counts")
                for text in (str(OTHER), str(job.key.job_id), "error-of-others", "tenant"):
                    assert text not in mine.text
        missing = await watch.refusal(f"?job_id={uuid4()}", tenant=ACME)
        foreign = await watch.refusal(f"?job_id={theirs.key.job_id}", tenant=ACME)
        assert missing[0] == foreign[0] == 404
        assert str(OTHER) not in foreign[1]

    run(app, test)


def test_the_totals_are_what_sql_counts(
    app: Celery, recorder: JobRecorder, connection: psycopg.Connection[Any]
) -> None:
    def totals(where: str) -> dict[str, int]:
        rows = connection.execute(f"SELECT status, count(*) FROM jobs WHERE {where} GROUP BY 1").fetchall()  # type: ignore[arg-type]
        return dict(rows)

    def told(stream: Stream) -> dict[str, int]:
        counts = stream.all_of("counts")
        return {status: jobs for status, jobs in counts[-1]["celery"].items() if jobs} if counts else {}

    async def test(watch: Watch) -> None:
        async with watch.open() as everything, watch.open(tenant=ACME) as mine:
            for tenant in (ACME, OTHER, ACME):
                job = some(recorder, tenant)
                recorder.record(job.started())
                recorder.record(job.completed())
            some(recorder)
            await everything.until(lambda: told(everything) == totals("true"))
            await mine.until(lambda: told(mine) == totals("tenant = 'acme'"))
            assert told(mine) == {"completed": 2, "queued": 1}

    run(app, test)


def test_whoever_comes_is_told_the_totals_and_that_jobs_were_deleted(
    app: Celery, recorder: JobRecorder, connection: psycopg.Connection[Any]
) -> None:
    some(recorder)

    def queued(stream: Stream) -> list[int]:
        return [counts["celery"]["queued"] for counts in stream.all_of("counts")]

    async def test(watch: Watch) -> None:
        async with watch.open() as first, watch.open(tenant=ACME) as mine:
            for stream in (first, mine):
                await stream.until(lambda stream=stream: queued(stream) == [1])
            async with watch.open() as second:
                await second.until(lambda: queued(second) == [1])
            connection.execute("DELETE FROM jobs")
            for stream in (first, mine):
                await stream.until(lambda stream=stream: queued(stream)[-1] == 0)

    run(app, test, pace=replace(QUICK, recount=0.1))


def test_a_revoked_token_ends_its_streams(app: Celery, access: AccessStore) -> None:
    async def test(watch: Watch) -> None:
        token, row = access.create("ada", Role.VIEWER)
        headers = {"authorization": f"Bearer {token}"}
        async with watch.open(headers=headers) as hers, watch.open() as other:
            access.revoke(row.name)
            await hers.until(lambda: hers.has_ended)
            assert not other.has_ended

    run(app, test, pace=replace(QUICK, tokens=0.05))


def test_whoever_comes_back_is_told_what_it_missed(app: Celery, recorder: JobRecorder) -> None:
    async def test(watch: Watch) -> None:
        async with watch.open(tenant=ACME) as first:
            seen = some(recorder)
            await first.until(lambda: status(seen, first))
            last = first.last_id
        missed, foreign = some(recorder), some(recorder, OTHER)
        async with watch.open(headers={"last-event-id": last}, tenant=ACME) as second:
            assert second.all_of("open")[0]["resumed"] is True
            await second.until(lambda: status(missed, second) == "queued")
            assert status(foreign, second) is None
        async with watch.open(f"?last_event_id={quote(last)}", tenant=ACME) as third:
            assert third.all_of("open")[0]["resumed"] is True
        for unknown in ("x", "000000000000-1", "0" * 3000):
            async with watch.open(headers={"last-event-id": unknown}, tenant=ACME) as anew:
                assert anew.all_of("open")[0]["resumed"] is False

    run(app, test, pace=replace(QUICK, linger=5))


def test_progress_is_told_and_whoever_watches_one_job_is_told_of_no_other(
    app: Celery, recorder: JobRecorder
) -> None:
    job, other = some(recorder), some(recorder)
    for each in (job, other):
        recorder.record(each.started())
    job_id = str(job.key.job_id)

    async def test(watch: Watch) -> None:
        async with watch.open(f"?job_id={job_id}", tenant=ACME) as stream:
            for progress in (10, 50):
                recorder.record(job.progressed(progress=progress, message=f"step {progress}"))
                recorder.record(other.progressed(progress=progress))
                await stream.until(lambda p=progress: stream.jobs.get(job_id, {}).get("progress") == p)
            recorder.record(job.completed())
            await stream.until(lambda: status(job, stream) == "completed")
            assert set(stream.jobs) == {job_id}
            assert "counts" not in stream.names
            assert stream.jobs[job_id]["progress_message"] == "step 50"

    run(app, test)


def test_an_event_says_what_a_row_of_the_jobs_page_shows(app: Celery, recorder: JobRecorder) -> None:
    async def test(watch: Watch) -> None:
        async with watch.open("?status=failed") as stream:
            job = some(recorder, type="<b>")
            recorder.record(job.started())
            recorder.record(job.failed(error="OSError: smtp://me:hunter2@mail\nmore"))
            await stream.until(lambda: status(job, stream) == "failed")
            [told] = stream.all_of("jobs")[0]
            assert told.pop("completed_at") > told.pop("started_at") > told.pop("created_at")
            assert told.pop("updated_at")
            assert told == {
                "job_id": str(job.key.job_id), "tenant": ACME, "type": "<b>", "status": "failed",
                "engine": "celery", "queue": "celery", "attempt": 1, "progress": None, "progress_message": None,
                "run_at": None, "error": "OSError: smtp://me:••••••@mail",
            }  # fmt: skip
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["cache-control"] == "no-store"
            assert stream.headers["x-accel-buffering"] == "no"
            assert "default-src 'none'" in stream.headers["content-security-policy"]

    run(app, test)


def test_what_cannot_be_asked_is_told(app: Celery) -> None:
    async def test(watch: Watch) -> None:
        for query in ("?status=lost", "?engine=x"):
            assert (await watch.refusal(query))[0] == 400
        assert (await watch.refusal("?job_id=%00"))[0] == 404
        async with watch.open(f"?tenant=%00&type={'x' * 2000}"):
            pass

    run(app, test)


def test_too_many_streams_are_refused(app: Celery) -> None:
    async def test(watch: Watch) -> None:
        token = watch.token()
        async with watch.open(headers=token), watch.open(headers=token):
            async with streaming(watch.dashboard, "/events", headers=token) as refused:
                await refused.until(lambda: refused.has_ended)
                assert (refused.status, refused.headers["retry-after"]) == (429, "60")
            async with watch.open():
                assert (await watch.refusal(""))[0] == 503
        async with watch.open(headers=token):
            pass

    run(app, test, most=3, most_each=2)


def test_every_stream_is_a_route_with_a_rule_and_begins_with_open(app: Celery) -> None:
    assert {rule.path for rule in STREAMS} >= {"/events"}

    async def test(watch: Watch) -> None:
        for rule in STREAMS:
            assert rule.needs is Role.VIEWER
            async with streaming(watch.dashboard, rule.path, headers=watch.token(ACME)) as stream:
                await stream.until(lambda stream=stream: stream.names[:1] == ["open"])
                assert stream.status == 200
            async with streaming(watch.dashboard, rule.path) as stranger:
                assert stranger.status == 401

    run(app, test)


def test_a_client_that_takes_nothing_does_not_hold_up_the_others(app: Celery, recorder: JobRecorder) -> None:
    async def test(watch: Watch) -> None:
        async with watch.open() as stuck, watch.open() as other:
            stuck.is_stuck = True
            jobs = [some(recorder) for _ in range(5)]
            await other.until(lambda: all(status(job, other) for job in jobs))
            assert status(jobs[-1], stuck) is None

    run(app, test)


def test_a_server_stops_at_once_although_streams_are_open(app: Celery, access: AccessStore) -> None:
    dashboard = make_dashboard(app)
    config = uvicorn.Config(dashboard, port=0, log_level="warning", timeout_graceful_shutdown=30)
    server = Server(config, dashboard.state.dashboard.live)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        token, _ = access.create("ada", Role.VIEWER)
        headers = {"authorization": f"Bearer {token}"}
        with httpx.stream("GET", f"http://127.0.0.1:{port}/events", headers=headers) as response:
            lines = response.iter_lines()
            assert "event: open" in (next(lines) for _ in range(10))
            server.should_exit = True
            assert "event: jobs" not in list(lines), "the answer ends"
        thread.join(timeout=5)
        assert not thread.is_alive()
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=10)


# -- what it reads


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

"""Streams of live events: who is told what, what an event says, and how streams begin and end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import psycopg
import pytest
import uvicorn

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.dashboard.access import sessions
from jobbridge.dashboard.access.identity import COOKIE, Authenticator
from jobbridge.dashboard.application import RULES, make_dashboard
from jobbridge.dashboard.server import Server
from jobbridge.recording import JobRecorder
from jobbridge.store.access.tokens import AccessStore
from tests.integration.dashboard.live_support import ACME, OTHER, QUICK, Watch, open_app, run, some, status
from tests.streams import Stream, streaming
from tests.support import wait_until

STREAMS = [rule for rule in RULES if rule.is_stream]


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


@pytest.fixture
def access(app: Celery) -> AccessStore:
    return AccessStore(app.database)


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


def test_a_session_that_was_ended_ends_its_streams(app: Celery, access: AccessStore) -> None:
    async def test(watch: Watch) -> None:
        token, _ = access.create("ada", Role.VIEWER)
        cookies = [Authenticator(access).sign_in(token) or "" for _ in range(2)]
        hers, elsewhere = ({"authorization": "", "cookie": f"{COOKIE}={cookie}"} for cookie in cookies)
        async with watch.open(headers=hers) as ended, watch.open(headers=elsewhere) as other:
            session = sessions.read_cookie(cookies[0])
            assert session is not None
            access.sign_out(session.nonce, session.ends_at)
            await ended.until(lambda: ended.has_ended)
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

"""What the tests of live events share: a dashboard in an event loop of its own, and streams of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dashboard.live.broadcaster import Live
from jobbridge.dashboard.live.reader import Pace
from jobbridge.recording import JobRecorder
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.job_events import EventsOf, new_key
from tests.parity.tasks import make_app
from tests.streams import Stream, streaming

ACME, OTHER = TenantId("acme"), TenantId("other-tenant-xyz")

#: As in use, but a test does not wait for what takes its time.
QUICK = Pace(look=0.02, quiet=0.1, backstop=0.2, counts=0.05, linger=0.1, reconnect=(0.05, 0.2))


@contextmanager
def open_app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


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

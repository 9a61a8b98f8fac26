"""A Temporal that cannot be reached costs each caller little, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from jobbridge.dev.postgres import PostgresServer
from jobbridge.dev.process import free_port
from jobbridge.dev.temporal import TemporalServer
from jobbridge.errors import EngineUnavailable
from jobbridge.settings import load_settings
from jobbridge.temporal.deliver.delivery import TemporalDelivery
from jobbridge.temporal.deliver.relay import Relay
from jobbridge.temporal.wire import client as temporal_client
from jobbridge.temporal.wire.client import TemporalClient
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.integration.temporal.tasks import make_app
from tests.proxy import Proxy
from tests.support import wait_until

ATTEMPTS = 1000


@pytest.fixture
def refusing() -> str:
    """Nobody listens there."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def silent() -> Iterator[str]:
    """Accepts connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refusing", "silent"])
def test_a_thousand_failed_attempts_leave_no_socket_no_thread_and_no_task(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = request.getfixturevalue(kind)
    monkeypatch.setattr(temporal_client, "CONNECT_TIMEOUT", timedelta(milliseconds=5))
    client = TemporalClient(load_settings({"TEMPORAL_ADDRESS": address}))

    async def fail(times: int) -> int:
        failures = 0
        for _ in range(times):
            with suppress(EngineUnavailable):
                await client.connected(ignore_failure=True)
                continue
            failures += 1
        return failures

    async def open_tasks() -> int:
        return len(asyncio.all_tasks())

    def used() -> tuple[int, int, int]:
        return (
            len(list(Path("/proc/self/fd").iterdir())),
            threading.active_count(),
            client.submit(open_tasks()).result(),
        )

    assert client.submit(fail(20)).result(timeout=30) == 20
    before = used()
    assert client.submit(fail(ATTEMPTS)).result(timeout=90) == ATTEMPTS

    assert all(now <= then + 3 for now, then in zip(used(), before, strict=True)), (before, used())
    client.close()


def test_the_relay_asks_a_silent_server_once_and_delivers_all_as_soon_as_it_is_back(
    own_world: TemporalWorld, temporal: TemporalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal_client, "CALL_TIMEOUT", timedelta(milliseconds=300))
    away = make_app(
        settings=load_settings(
            {
                **own_world.environment,
                "TEMPORAL_ADDRESS": "127.0.0.1:1",
                "JOB_RUNNER_FALLBACK_TO_CELERY": "false",
            }
        )
    )
    away.finalize()
    jobs = [away.tasks["parity.add"].delay(1, number).id for number in range(5)]
    with Proxy(temporal.port) as proxy, ThreadPoolExecutor(1) as executor:
        settings = load_settings({**own_world.environment, "TEMPORAL_ADDRESS": proxy.address})
        delivery = TemporalDelivery(settings, own_world.app)
        relay = Relay(own_world.app, delivery, is_held=lambda _: False, executor=executor)
        delivery.check()
        proxy.freeze()

        assert relay.sweep(timedelta()) == 0
        assert {row["status"] for row in own_world.rows()} == {"pending"}
        assert not any(own_world.rows("relayed_at IS NOT NULL"))
        proxy.thaw()
        wait_until(lambda: relay.sweep(timedelta()) or all_queued(own_world))

        assert all_queued(own_world)
        assert {own_world.status(job) for job in jobs} == {"RUNNING"}
        delivery.close()
    away.close()
    away.database.close()


@pytest.fixture
def limited_role(postgres: PostgresServer) -> str:
    """Who may everything, and is no superuser: limits hold for it."""
    role = f"worker_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret' IN ROLE jobbridge").format(sql.Identifier(role))
        )
    return role


_ITS_BOOKS = "usename = %s AND application_name ~ 'worker .* jobs$'"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_nothing_runs_while_its_beginning_cannot_be_written(
    own_world: TemporalWorld, postgres: PostgresServer, limited_role: str, pool: str
) -> None:
    """What may run twice goes back to its workflow, or to Temporal; what must not waits in its place."""
    limit = sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}")
    database = own_world.environment["DATABASE_URL"].rpartition("/")[2]
    url = f"postgresql://{limited_role}:secret@127.0.0.1:{postgres.port}/{database}"
    worker = own_world.worker("-P", pool, "-c", "4", DATABASE_URL=url)
    held = own_world.task("temporal.steady").delay()
    own_world.wait_for_start(held.id)
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        # The broker's session stays: a worker that has lost it takes nothing at all.
        admin.execute(limit.format(sql.Identifier(limited_role), sql.Literal(0)))
        ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {_ITS_BOOKS}"
        admin.execute(ended.encode(), [limited_role])
        late = own_world.task("temporal.steady").delay()
        light = own_world.task("temporal.steady").apply_async(temporal_light=True)
        early = own_world.task("temporal.early").delay()
        jobs = (late, light, early)

        wait_until(lambda: own_world.state(late.id).get("error"), timeout=TIMEOUT, every=0.2)
        wait_until(lambda: own_world.activity(light.id).attempt > 1, timeout=TIMEOUT, every=0.2)
        wait_until(lambda: "job.event_waits" in worker.log(), timeout=TIMEOUT)
        assert [own_world.lines(each.id, "started") for each in jobs] == [[], [], []]
        admin.execute(limit.format(sql.Identifier(limited_role), sql.Literal(-1)))

    for each in (held, *jobs):
        own_world.wait_for_start(each.id)
        own_world.release(each.id)
        assert each.get(timeout=TIMEOUT) == 1
        row = own_world.wait_for_status(each.id, "completed")
        assert (row["attempt"], len(own_world.lines(each.id, "started"))) == (1, 1)


def all_queued(world: TemporalWorld) -> bool:
    return {row["status"] for row in world.rows()} == {"queued"}

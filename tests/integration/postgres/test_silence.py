"""A peer that holds the line and says nothing: noticed within half a minute by whoever waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import LiteralString

import psycopg
import pytest
from kombu import Connection

from jobbridge.broker.errors import SessionLost
from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import DatabaseUnavailable
from jobbridge.postgres import silence
from jobbridge.postgres.connect import connect, connect_async
from jobbridge.postgres.faults import Kind, kind_of
from jobbridge.postgres.listen import wait
from jobbridge.postgres.target import Target
from jobbridge.store.database import Database
from tests.proxy import Proxy

#: What is promised, in seconds.
NOTICED_WITHIN = 30.0


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def url(database_url: str, postgres: PostgresServer, proxy: Proxy) -> str:
    return database_url.replace(f"127.0.0.1:{postgres.port}", proxy.address)


def test_a_frozen_peer_is_noticed_by_publishers_bookkeeping_and_listeners(proxy: Proxy, url: str) -> None:
    sender = Connection(f"jobbridge+{url}", transport_options={})
    sender.Producer().publish("x", routing_key="q")
    database = Database(url)
    database.run(lambda own: own.execute("SELECT 1"))

    async def listener() -> None:
        connection = await connect_async(Target.of(url), "relay", keeps_session=True)
        async with connection:
            assert not await wait(connection, 0.1)
            proxy.freeze()
            frozen.append(time.monotonic())
            with pytest.raises(psycopg.OperationalError) as caught:
                await connection.execute("SELECT 1")
            assert kind_of(caught.value) is Kind.LOST

    def publisher() -> None:
        with pytest.raises(SessionLost):
            sender.Producer().publish("y", routing_key="q")

    def bookkeeper() -> None:
        with pytest.raises(DatabaseUnavailable):
            database.run(lambda own: own.execute("SELECT 1"))

    frozen: list[float] = []
    with ThreadPoolExecutor(3) as threads:
        listening = threads.submit(asyncio.run, listener())
        while not frozen:
            assert not listening.done()
            time.sleep(0.01)
        took = list(
            threads.map(_timed, (publisher, bookkeeper, lambda: listening.result(NOTICED_WITHIN + 5)))
        )
    proxy.thaw()
    sender.close()
    database.close()

    assert max(took) < NOTICED_WITHIN


def _timed(work: Callable[[], object]) -> float:
    began_at = time.monotonic()
    work()
    return time.monotonic() - began_at


def test_a_statement_that_takes_long_is_left_alone(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "PATIENCE", 0.2)
    with closing(connect(Target.of(database_url), "jobs")) as connection:
        assert connection.execute("SELECT pg_sleep(1.5), 7").fetchone() == ("", 7)


def test_a_slow_statement_is_left_alone_although_nobody_else_may_connect(
    postgres: PostgresServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who answers that there is no room is there."""
    monkeypatch.setattr(silence, "PATIENCE", 0.2)
    name = database_url.rsplit("/", 1)[1]
    with (
        psycopg.connect(postgres.url(), autocommit=True) as admin,
        closing(connect(Target.of(database_url), "jobs")) as connection,
    ):
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            assert connection.execute("SELECT pg_sleep(1.5), 7").fetchone() == ("", 7)
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_a_session_that_is_gone_without_a_word_is_noticed(
    proxy: Proxy, url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way is open, but the answer of this one session never comes: its backend has ended."""
    monkeypatch.setattr(silence, "PATIENCE", 0.5)
    with closing(connect(Target.of(url), "jobs")) as connection:
        connection.execute("SELECT 1")
        proxy.freeze(answers_only=True)
        with psycopg.connect(postgres.url(), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        monkeypatch.setattr(connection, "probe", {**(connection.probe or {}), "port": postgres.port})
        with pytest.raises(silence.Silence):
            connection.execute("SELECT 1")


def test_the_locks_of_a_client_that_vanished_behind_a_proxy_are_free_again(
    proxy: Proxy, url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy holds the line, so Postgres sees a client that thinks."""
    monkeypatch.setattr("jobbridge.postgres.connect.IDLE_IN_TRANSACTION", "500ms")
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("CREATE TABLE locked AS SELECT n FROM generate_series(1, 2) AS n")
    lock: LiteralString = "SELECT FROM locked WHERE n = %s FOR UPDATE"
    database, sender = Database(url), Connection(f"jobbridge+{url}", transport_options={})

    with sender.channel() as channel, ExitStack() as vanished:
        vanished.enter_context(channel.own_session.transaction())
        own = vanished.enter_context(database.transaction())
        own.execute(lock, [1])
        channel.own_session.connection.execute(lock, [2])
        proxy.freeze()
        with psycopg.connect(database_url, options="-c lock_timeout=20s") as other:
            other.execute("SELECT FROM locked FOR UPDATE")
        proxy.thaw()
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            own.execute("SELECT 1")
        with pytest.raises((DatabaseUnavailable, SessionLost, psycopg.OperationalError)):
            vanished.close()
    sender.close()
    database.close()

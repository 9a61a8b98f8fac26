"""A pooler in between: seen in every mode, refused where it takes away what a consumer lives by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kombu import Connection

from jobbridge.broker.errors import BrokerRefused
from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import DatabaseRefused
from jobbridge.postgres.connect import connect
from jobbridge.postgres.target import Target
from tests.integration.broker.support import kombu_connection
from tests.pgbouncer import run_pgbouncer


@pytest.fixture(params=["transaction", "session"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pooled_url(open_folder: Path, postgres: PostgresServer, database_url: str, mode: str) -> Iterator[str]:
    with run_pgbouncer(open_folder, postgres, mode=mode) as place:
        yield database_url.replace(f"127.0.0.1:{postgres.port}", place)


def test_a_pooler_is_seen_in_every_mode(pooled_url: str, database_url: str) -> None:
    with (
        closing(connect(Target.of(pooled_url), "jobs")) as pooled,
        closing(connect(Target.of(database_url), "jobs")) as direct,
    ):
        assert (pooled.is_pooled, direct.is_pooled) == (True, False)


@pytest.mark.parametrize("mode", ["transaction"], indirect=True)
def test_who_needs_a_session_is_refused_and_told_what_to_use(pooled_url: str) -> None:
    with pytest.raises(DatabaseRefused, match="another session") as caught:
        connect(Target.of(pooled_url), "presence", keeps_session=True)

    assert "pool_mode = session" in caught.value.hint


@pytest.mark.parametrize("mode", ["session"], indirect=True)
def test_a_pool_of_whole_sessions_will_do(pooled_url: str) -> None:
    settings = {"enable_seqscan": "off"}
    with closing(
        connect(Target.of(pooled_url), "presence", keeps_session=True, settings=settings)
    ) as connection:
        assert connection.execute("SHOW enable_seqscan").fetchone() == ("off",)
        assert connection.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (True,)
        connection.execute("LISTEN told")
        connection.execute("NOTIFY told")
        assert [each.channel for each in connection.notifies(timeout=5, stop_after=1)] == ["told"]


@pytest.mark.parametrize("mode", ["transaction"], indirect=True)
def test_who_only_sends_leaves_nothing_in_sessions_that_others_use(pooled_url: str) -> None:
    senders = [Connection(f"jobbridge+{pooled_url}") for _ in range(4)]
    try:
        for _ in range(8):  # psycopg would prepare a statement at its sixth use, ours at its first
            for sender in senders:
                sender.Producer().publish("x", routing_key="q")
    finally:
        for sender in senders:
            sender.close()

    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as somebody:
        assert _one(somebody, "SELECT count(*) FROM jobbridge_broker.messages") == 32
        assert _one(somebody, "SHOW enable_seqscan") == "on"
        assert _one(somebody, "SELECT count(*) FROM pg_prepared_statements") == 0


@pytest.mark.parametrize("mode", ["transaction"], indirect=True)
def test_a_consumer_is_refused_by_the_broker(pooled_url: str) -> None:
    with (
        kombu_connection(f"jobbridge+{pooled_url}") as consumer,
        pytest.raises(BrokerRefused, match=r"another session.*pool_mode = session") as caught,
    ):
        consumer.default_channel.basic_consume("q", callback=print)

    assert not isinstance(caught.value, consumer.connection_errors)


def _one(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement).fetchone()  # type: ignore[arg-type]  # constants of this file
    assert row is not None
    return row[0]

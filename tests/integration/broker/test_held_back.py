"""Claims while a transaction is open that may see all that ever was in the table (decision 0024)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from kombu import Connection

from jobbridge.broker.consume import passed as module
from jobbridge.broker.consume.claiming import CLAIM_AFTER, PRIORITIES, claim
from jobbridge.broker.session import Session
from tests.integration.broker.support import Tables, kombu_connection

PUT = """
INSERT INTO jobbridge_broker.messages (queue, priority, headers, properties, body)
SELECT 'q', n %% 3, '{}', '{}', '' FROM generate_series(1, %s) AS n
"""


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    tables = Tables(database_url)
    with psycopg.connect(database_url) as observer:
        observer.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        observer.execute("SELECT FROM jobs")
        yield tables
    tables.connection.close()


@pytest.fixture
def connection(tables: Tables) -> Iterator[Connection]:
    with kombu_connection(tables.broker_url) as connection:
        yield connection


@pytest.fixture
def session(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(module, "SLOW", 0.0)  # each claim is slow
    monkeypatch.setattr(module, "TIMES", 1)
    monkeypatch.setattr(module, "SETTLES", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e-9)  # and nothing is looked at twice
    monkeypatch.setattr(module, "LONGEST", 3600.0)
    found: Session = connection.channel().own_session
    return found


def take(session: Session, limit: int = 50, done: list[int] | None = None) -> list[dict[str, Any]]:
    return claim(session, "q", limit, suspect_from=4, done=done or ()).rows


def drain(session: Session) -> list[dict[str, Any]]:
    taken, done = [], []
    while rows := take(session, done=done):
        taken += rows
        done = [row["id"] for row in rows]
    return taken


def test_what_is_gone_is_not_read_again(session: Session, tables: Tables) -> None:
    tables.connection.execute(PUT.encode(), [3000])
    assert len(drain(session)) == 3000
    tables.connection.execute(PUT.encode(), [60])
    take(session)  # from now on it knows how far it came

    floors = session.passed["q"].floors()
    parameters = {"queue": "q", "limit": 5, "suspect_from": 4, "done": [], "consumer": 1}
    parameters |= {"priorities": list(PRIORITIES), "floors": floors}
    tables.connection.execute("ANALYZE jobbridge_broker.messages")
    plan = [
        str(next(iter(row.values())))
        for row in session.rows(f"EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) {CLAIM_AFTER}", parameters)
    ]

    assert any("messages_ready" in line for line in plan)
    passed_over = [int(line.split(":")[1]) for line in plan if "Rows Removed by Filter" in line]
    assert max(passed_over, default=0) < 100
    assert floors is not None
    newest = tables.number("SELECT max(id) FROM jobbridge_broker.messages")
    assert min(floors) > newest - 200


def test_the_order_is_the_same(session: Session, tables: Tables) -> None:
    for _ in range(3):
        tables.connection.execute(PUT.encode(), [200])
        rows = drain(session)
        assert [(-row["priority"], row["id"]) for row in rows] == sorted(
            (-row["priority"], row["id"]) for row in rows
        )
        assert len(rows) == 200


@pytest.mark.parametrize("number", [1, 120])
def test_what_comes_back_behind_is_found_when_all_is_looked_at(
    session: Session, tables: Tables, number: int
) -> None:
    tables.connection.execute(PUT.encode(), [300])
    early = drain(session)
    # Messages of a transaction that was open all the time, and leases that were given back.
    tables.connection.execute(
        "INSERT INTO jobbridge_broker.messages (id, queue, priority, headers, properties, body)"
        " OVERRIDING SYSTEM VALUE SELECT id, 'q', id %% 3, '{}', '{}', '' FROM unnest(%s::bigint[]) AS id",
        [[row["id"] for row in early[:number]]],
    )
    tables.connection.execute(PUT.encode(), [30])

    assert len(drain(session)) == 30
    session.passed["q"].all_again_at = 0.0  # it is time, once

    assert len(drain(session)) == number


def test_when_claims_are_fast_again_everything_is_looked_at(
    session: Session, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.connection.execute(PUT.encode(), [10])
    drain(session)
    assert session.passed["q"].floors() is not None

    monkeypatch.setattr(module, "SLOW", 60.0)
    session.passed["q"].all_again_at = 0.0
    take(session)

    assert session.passed["q"].floors() is None

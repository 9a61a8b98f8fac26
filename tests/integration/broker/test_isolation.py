"""Suspects run alone before they are condemned: only what took its consumer with it becomes a dead letter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from kombu import Connection, Consumer, Queue

from tests.integration.broker.support import Tables, kombu_connection
from tests.support import wait_until

OPTIONS: dict[str, Any] = {"max_deliveries": 2, "sweep_interval": 0.05, "poll_interval": 0.2}


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    tables = Tables(database_url)
    yield tables
    tables.connection.close()


def _turn(connection: Connection) -> bool:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.05)
    return True


def _bury(tables: Tables, **options: Any) -> None:
    """End whoever has something, and have somebody look."""
    tables.end_sessions()
    with (
        kombu_connection(tables.broker_url, **OPTIONS, **options) as sweeper,
        Consumer(sweeper, [Queue("other")], callbacks=[print]),
    ):
        wait_until(lambda: _turn(sweeper) and not any(each["leased_by"] for each in tables.messages))


def _send(tables: Tables, *bodies: str) -> None:
    with kombu_connection(tables.broker_url) as sender:
        for body in bodies:
            sender.Producer().publish(body, routing_key="q", headers={"id": body})


def _take(connection: Connection, number: int) -> list[Any]:
    return [connection.default_channel.basic_get("q") for _ in range(number)]


def test_the_guilty_one_is_condemned_and_who_ran_beside_it_is_not(tables: Tables) -> None:
    _send(tables, "guilty", "innocent")
    victim = Connection(tables.broker_url)
    taken = _take(victim, 2)
    _bury(tables)
    assert [each["deliveries"] for each in tables.messages] == [1, 1]
    del taken
    victim.close()
    received: list[Any] = []

    alone = Connection(tables.broker_url, transport_options=OPTIONS)
    consumer = Consumer(alone, [Queue("q")], callbacks=[lambda _, message: received.append(message)])
    consumer.qos(prefetch_count=8)
    with consumer:
        wait_until(lambda: _turn(alone) and received)
        _send(tables, "later")
        for _ in range(10):
            _turn(alone)  # a poll and a notification are among these
        assert [message.payload for message in received] == ["guilty"], "nothing beside it"
        tables.end_sessions()
    alone.close()
    received.clear()
    _bury(tables)

    assert [each["reason"] for each in tables.dead_letters] == ["too_many_deliveries"]
    with kombu_connection(tables.broker_url, **OPTIONS) as last:
        consumer = Consumer(last, [Queue("q")], callbacks=[lambda _, message: received.append(message)])
        consumer.qos(prefetch_count=8)
        with consumer:
            wait_until(lambda: _turn(last) and received)
            assert [message.payload for message in received] == ["innocent"]
            received[0].ack()
            wait_until(lambda: _turn(last) and len(received) == 2)
            received[1].ack()
    assert tables.messages == []


def test_who_is_busy_takes_a_suspect_when_it_has_nothing_else(tables: Tables) -> None:
    _send(tables, "suspect", "beside")
    victim = Connection(tables.broker_url)
    taken = _take(victim, 1)
    received: list[Any] = []
    with kombu_connection(tables.broker_url, **OPTIONS) as busy:
        consumer = Consumer(busy, [Queue("q")], callbacks=[lambda _, message: received.append(message)])
        consumer.qos(prefetch_count=8)
        with consumer:
            wait_until(lambda: _turn(busy) and received)
            tables.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s", _pid(victim))
            wait_until(lambda: _turn(busy) and not tables.messages[0]["leased_by"])
            _send(tables, "another")
            wait_until(lambda: _turn(busy) and len(received) == 2)
            assert [message.payload for message in received] == ["beside", "another"]
            for message in received:
                message.ack()
            wait_until(lambda: _turn(busy) and len(received) == 3)
            assert received[2].payload == "suspect"
            received[2].ack()
    assert (tables.messages, tables.dead_letters) == ([], [])
    del taken
    victim.close()


def _pid(connection: Connection) -> int:
    return int(connection.transport.session.connection.info.backend_pid)


def test_what_was_only_taken_ahead_counts_no_delivery(tables: Tables) -> None:
    _send(tables, "begun", "ahead")
    asked: list[Any] = []

    def not_begun(headers: list[dict[str, Any]], numbers: list[int]) -> set[str]:
        asked.append(({each["id"] for each in headers}, numbers))
        return {"ahead"}

    victim = Connection(tables.broker_url)
    taken = _take(victim, 2)
    numbers = {each["leased_by"] for each in tables.messages}
    _bury(tables, not_begun=not_begun)

    assert [(each["deliveries"], each["redelivered"]) for each in tables.messages] == [(1, True), (0, True)]
    assert asked == [({"begun", "ahead"}, list(numbers))]
    del taken
    victim.close()

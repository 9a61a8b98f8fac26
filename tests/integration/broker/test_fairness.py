"""How much is done for others before the most important message is delivered: counted, not timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub

from tests.integration.broker.support import Tables, kombu_connection
from tests.support import wait_until

MANY = 3_000
#: What is made ready at most before there is a claim.
PORTION = 500


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    tables = Tables(database_url)
    yield tables
    tables.connection.close()


@pytest.fixture
def connection(tables: Tables) -> Iterator[Connection]:
    with kombu_connection(tables.broker_url) as connection:
        yield connection


def put(tables: Tables, queue: str, number: int, *, priority: int = 0, **times: str) -> None:
    """Store messages as they are stored when they are sent.

    Args:
        times: SQL of `due_at` or `expires_at`.
    """
    statement = (
        f"INSERT INTO jobbridge_broker.messages (queue, priority, {', '.join([*times, 'headers'])}, properties, body)"
        f" SELECT %s, %s, {', '.join([*times.values(), repr('{}')])},"
        " jsonb_build_object('body_encoding', '', 'delivery_info', jsonb_build_object('routing_key', %s::text)), ''"
        " FROM generate_series(1, %s)"
    )
    tables.connection.execute(statement.encode(), [queue, priority, queue, number])


Drive = Callable[[Connection, list[Any]], None]


def _by_waiting(connection: Connection) -> None:
    with suppress(TimeoutError):  # on a busy machine it may take longer
        connection.drain_events(timeout=5)


@pytest.fixture(params=["by waiting", "by a loop"])
def drive(request: pytest.FixtureRequest) -> Iterator[Drive]:
    """Let the consumers of a connection get messages, until there is one."""
    if request.param == "by waiting":

        def wait(connection: Connection, got: list[Any]) -> None:
            wait_until(lambda: _by_waiting(connection) or got)

        yield wait
        return
    hub = Hub()

    def turn(connection: Connection, got: list[Any]) -> None:
        connection.register_with_event_loop(hub)
        loop = hub.create_loop()
        wait_until(lambda: next(loop) or got)

    yield turn
    hub.close()


def ready(tables: Tables) -> int:
    return tables.number("SELECT count(*) FROM jobbridge_broker.messages WHERE due_at IS NULL")


def test_what_is_important_does_not_wait_for_all_that_is_due(
    connection: Connection, tables: Tables, drive: Drive
) -> None:
    put(tables, "q", MANY, due_at="now() - interval '1 minute'")
    put(tables, "q", 1, priority=9)
    got: list[tuple[int, int]] = []

    def received(_: Any, message: Any) -> None:
        got.append((ready(tables), int(message.delivery_tag.split(".")[0])))

    with Consumer(connection, [Queue("q")], on_message=lambda message: received(None, message)) as consumer:
        consumer.qos(prefetch_count=4)
        drive(connection, got)

    promoted, first = got[0]
    assert first == MANY + 1
    assert promoted - 1 <= PORTION


def test_all_that_is_due_comes_at_last(connection: Connection, tables: Tables) -> None:
    put(tables, "q", 3 * PORTION, due_at="now() - interval '1 minute'")
    hub, got = Hub(), []

    def received(message: Any) -> None:
        got.append(message.delivery_tag)
        message.ack()

    with Consumer(connection, [Queue("q")], on_message=received) as consumer:
        consumer.qos(prefetch_count=50)
        connection.register_with_event_loop(hub)
        loop = hub.create_loop()
        wait_until(lambda: next(loop) or len(got) == 3 * PORTION, every=0)
        wait_until(lambda: next(loop) or not tables.messages)
    hub.close()


def test_other_queues_do_not_wait_for_all_that_is_expired(
    connection: Connection, tables: Tables, drive: Drive
) -> None:
    put(tables, "expired", MANY, expires_at="now() - interval '1 minute'")
    put(tables, "q", 1)
    left: list[int] = []

    def received(message: Any) -> None:
        left.append(tables.number("SELECT count(*) FROM jobbridge_broker.messages WHERE queue = 'expired'"))

    with Consumer(connection, [Queue("expired"), Queue("q")], on_message=received) as consumer:
        consumer.qos(prefetch_count=4)
        drive(connection, left)

    assert left[0] >= MANY - 2 * PORTION  # a sweep and a claim


def test_expired_messages_at_the_head_do_not_keep_the_loop_from_what_is_behind(
    connection: Connection, tables: Tables, drive: Drive
) -> None:
    put(tables, "q", MANY, expires_at="now() - interval '1 minute'")
    put(tables, "q", 1)
    got: list[Any] = []

    with Consumer(connection, [Queue("q")], on_message=got.append) as consumer:
        consumer.qos(prefetch_count=4)
        drive(connection, got)

    assert [int(message.delivery_tag.split(".")[0]) for message in got] == [MANY + 1]

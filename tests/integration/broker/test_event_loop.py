"""In a worker's event loop: what was told while the worker talked to Postgres is heard before the loop sleeps."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Consumer, Queue
from kombu.asynchronous import Hub

from tests.integration.broker.support import Tables, kombu_connection

QUEUE = Queue("letters")


class Sleepless:
    """The hub's poller; the loop must not sleep while somebody looks."""

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self.forbids = False

    def poll(self, timeout: float | None) -> Any:
        events = self._poller.poll(0 if self.forbids else timeout)
        assert events or not self.forbids, "the loop would sleep now"
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    tables = Tables(database_url)
    yield tables
    tables.connection.close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    hub.poller = Sleepless(hub.poller)
    yield hub
    hub.poller = hub.poller._poller
    hub.close()


def test_what_is_told_while_an_acknowledgement_is_written_is_heard(tables: Tables, hub: Hub) -> None:
    got: list[Any] = []
    with (
        kombu_connection(tables.broker_url) as connection,
        kombu_connection(tables.broker_url) as sender,
        Consumer(connection, [QUEUE], callbacks=[lambda body, message: got.append(message)]),
    ):
        connection.transport.register_with_event_loop(connection.connection, hub)
        loop = hub.create_loop()
        producer = sender.Producer()
        producer.publish({"number": 1}, routing_key=QUEUE.name, declare=[QUEUE])
        while not got:
            next(loop)

        got[0].ack()  # written with the next turn
        producer.publish({"number": 2}, routing_key=QUEUE.name)
        assert select.select([connection.transport.session], [], [], 10)[
            0
        ]  # it has been told, and has not read it
        hub.poller.forbids = True
        while len(got) < 2:
            next(loop)

        assert _numbers(got) == [1, 2]
        got[1].ack()
        connection.transport.unregister_from_event_loop(connection.connection, hub)


def _numbers(messages: list[Any]) -> list[int]:
    return [message.payload["number"] for message in messages]

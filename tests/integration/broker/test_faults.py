"""What Postgres could not do for the moment ends no session, and nothing is forgotten over it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from kombu import Connection, Consumer, Queue

from jobbridge.broker.errors import NotNow
from tests.integration.broker.support import Tables, kombu_connection
from tests.support import wait_until

_WAITS = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name ~ ' broker$' AND wait_event_type = 'Lock'"
)


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    tables = Tables(database_url)
    yield tables
    tables.connection.close()


@pytest.fixture
def connection(tables: Tables) -> Iterator[Connection]:
    with kombu_connection(tables.broker_url) as connection:
        yield connection


@contextmanager
def cancelled_once(tables: Tables, while_locked: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Cancel the next statement that touches a message; the one after it finds the way free."""
    with psycopg.connect(tables.url) as holder:
        holder.execute("LOCK TABLE jobbridge_broker.messages")

        def cancel() -> None:
            pid = wait_until(lambda: tables.rows(_WAITS), message="a statement waits")[0]["pid"]
            tables.rows("SELECT pg_cancel_backend(%s)", pid)
            while_locked()
            wait_until(lambda: tables.rows(_WAITS), message="it is tried again")
            holder.rollback()

        thread = threading.Thread(target=cancel)
        thread.start()
        yield
        thread.join()


def send(connection: Connection, body: Any) -> None:
    connection.Producer().publish(body, routing_key="q")


def test_an_acknowledgement_that_was_cancelled_is_written_by_the_next_try(
    connection: Connection, tables: Tables
) -> None:
    send(connection, "x")
    message = connection.default_channel.basic_get("q")
    session = connection.default_channel.own_session

    with cancelled_once(tables):
        message.ack()

    assert tables.messages == []
    assert session.is_alive


def test_a_claim_that_was_cancelled_is_made_again(connection: Connection, tables: Tables) -> None:
    received: list[Any] = []
    with Consumer(connection, [Queue("q")], callbacks=[lambda body, message: received.append(body)]):
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        send(connection, "x")
        session = connection.default_channel.own_session
        with cancelled_once(tables):
            wait_until(lambda: _turned(connection) and received)

    assert received == ["x"]
    assert session.consumer is not None
    assert connection.default_channel.own_session is session


def test_a_publish_that_was_cancelled_is_made_again_if_that_was_asked_for(
    connection: Connection, tables: Tables
) -> None:
    connection.connect()
    with cancelled_once(tables):
        connection.Producer().publish(
            "x", routing_key="q", retry=True, retry_policy={"max_retries": 3, "interval_start": 0}
        )

    assert len(tables.messages) == 1


def test_a_publish_that_was_cancelled_reaches_who_asked_for_no_retry(
    connection: Connection, tables: Tables
) -> None:
    session = connection.default_channel.own_session
    with psycopg.connect(tables.url) as holder:
        holder.execute("LOCK TABLE jobbridge_broker.messages")

        def cancel() -> None:
            pid = wait_until(lambda: tables.rows(_WAITS))[0]["pid"]
            tables.rows("SELECT pg_cancel_backend(%s)", pid)

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(NotNow, match="could not do it now"):
            connection.default_channel.basic_publish(connection.default_channel.prepare_message("x"), "", "q")
        thread.join()

    assert session.is_alive
    assert tables.messages == []


def _turned(connection: Connection) -> bool:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.05)
    return True

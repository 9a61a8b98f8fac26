"""Leases are as alive as their session: what happens when sessions end, processes fork, and Postgres refuses."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from kombu import Connection, Consumer, Queue
from kombu.exceptions import OperationalError
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from jobbridge.broker import BrokerNotMigrated, BrokerRefused
from jobbridge.broker.consume.settling import Settlement
from jobbridge.broker.errors import SessionLost
from jobbridge.postgres.locks import CONSUMERS
from jobbridge.postgres.presence import Proof
from tests.cut_off import SLOW, cut_off_amid
from tests.integration.broker.support import Tables, kombu_connection
from tests.support import wait_until


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    tables = Tables(database_url)
    yield tables
    tables.connection.close()


@pytest.fixture
def connection(tables: Tables) -> Iterator[Connection]:
    with kombu_connection(tables.broker_url, sweep_interval=0.1) as connection:
        yield connection


def send(connection: Connection, body: Any, queue: str = "q", **options: Any) -> None:
    connection.Producer().publish(body, routing_key=queue, **options)


def get(connection: Connection, queue: str = "q") -> Any:
    return connection.default_channel.basic_get(queue)


def consume_for_a_moment(connection: Connection, queue: str = "other") -> None:
    """Be a consumer that nothing comes for; it sweeps."""
    with Consumer(connection, [Queue(queue)], callbacks=[print]), pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.15)


# -- leases


def test_a_lease_holds_while_its_session_lives(connection: Connection, tables: Tables) -> None:
    send(connection, "x")
    with kombu_connection(tables.broker_url) as holder:
        assert get(holder)
        for _ in range(3):
            consume_for_a_moment(connection)
        assert get(connection) is None
        assert tables.messages[0]["leased_by"]


def test_a_consumer_holds_the_lock_on_its_number(connection: Connection, tables: Tables) -> None:
    send(connection, "x")
    get(connection)
    number = tables.messages[0]["leased_by"]

    assert tables.rows("SELECT pg_try_advisory_lock(%s) AS got", CONSUMERS + number) == [{"got": False}]


def test_what_a_lost_session_held_is_delivered_to_others_and_counted(
    connection: Connection, tables: Tables
) -> None:
    send(connection, "x")
    with kombu_connection(tables.broker_url) as holder:
        assert get(holder)
        tables.end_sessions()

        with kombu_connection(tables.broker_url, sweep_interval=0.1) as other:
            wait_until(lambda: consume_for_a_moment(other) or not tables.messages[0]["leased_by"])
            message = get(other)
    assert message.delivery_info["redelivered"] is True
    assert tables.rows("SELECT deliveries FROM jobbridge_broker.messages") == [
        {"deliveries": 1}
    ]  # given back


def test_what_kills_its_consumers_ends_as_a_dead_letter(tables: Tables) -> None:
    dead: list[Any] = []
    with kombu_connection(tables.broker_url) as sender:
        send(sender, "poison", headers={"id": "7"})
    options: dict[str, Any] = {
        "sweep_interval": 0.05,
        "max_deliveries": 2,
        "on_dead_letter": lambda headers, reason: dead.append((headers["id"], reason)),
    }
    for _ in range(2):
        victim = Connection(tables.broker_url)
        assert get(victim)
        tables.end_sessions()
        victim.close()
        with kombu_connection(tables.broker_url, **options) as sweeper:
            wait_until(
                lambda: consume_for_a_moment(sweeper) or not any(m["leased_by"] for m in tables.messages)
            )

    assert dead == [("7", "too_many_deliveries")]
    assert (tables.messages, len(tables.dead_letters)) == ([], 1)


def test_a_lease_that_no_row_speaks_for_is_freed(tables: Tables) -> None:
    with kombu_connection(tables.broker_url, poll_interval=0.1) as connection:
        send(connection, "x")
        tables.connection.execute("UPDATE jobbridge_broker.messages SET leased_by = 4711, deliveries = 1")

        wait_until(lambda: consume_for_a_moment(connection) or not tables.messages[0]["leased_by"])


def test_a_lease_that_no_row_speaks_for_is_kept_while_its_lock_is_held(tables: Tables) -> None:
    with kombu_connection(tables.broker_url, poll_interval=0.1) as connection:
        send(connection, "x")
        tables.connection.execute("UPDATE jobbridge_broker.messages SET leased_by = 4711, deliveries = 1")
        tables.rows("SELECT pg_advisory_lock(%s)", CONSUMERS + 4711)
        with kombu_connection(tables.broker_url) as other:
            for _ in range(4):
                consume_for_a_moment(connection)
                consume_for_a_moment(other)
        assert tables.messages[0]["leased_by"] == 4711


def test_the_queues_of_a_lost_session_are_deleted(connection: Connection, tables: Tables) -> None:
    with kombu_connection(tables.broker_url) as holder:
        Queue("reply", exclusive=True, channel=holder.default_channel).declare()
        send(holder, "answer", "reply")
        tables.end_sessions()
    with kombu_connection(tables.broker_url, sweep_interval=0.1) as other:
        wait_until(lambda: consume_for_a_moment(other) or "reply" not in tables.queues)
    assert tables.messages == []


# -- lost sessions


def test_losing_the_session_is_an_error_that_reconnecting_cures(
    connection: Connection, tables: Tables
) -> None:
    consumer = Consumer(connection, [Queue("q")], callbacks=[print])
    consumer.consume()
    tables.end_sessions()

    with pytest.raises(connection.connection_errors) as raised:
        connection.drain_events(timeout=2)
    assert isinstance(raised.value, SessionLost)

    assert not connection.connected
    connection.ensure_connection(max_retries=3)
    send(connection, "x")
    assert get(connection).payload == "x"


def test_a_session_that_is_cut_off_amid_a_statement_is_lost(
    connection: Connection, tables: Tables, database_url: str
) -> None:
    session = connection.default_channel.own_session
    with cut_off_amid(database_url, session.fileno), pytest.raises(SessionLost):
        session.rows(SLOW)

    assert not session.is_alive
    assert not connection.connected
    connection.ensure_connection(max_retries=3)
    send(connection, "x")
    assert get(connection).payload == "x"


def test_a_session_that_is_lost_as_it_begins_is_opened_again(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, cut = PGDialect_psycopg.initialize, list[int]()

    def ask_when_it_is_cut_off(self: Any, connection: Any) -> None:
        if not cut:
            cut.append(connection.connection.driver_connection.info.backend_pid)
            tables.connection.execute("SELECT pg_terminate_backend(%s, 10000)", cut)
        ask(self, connection)

    monkeypatch.setattr(PGDialect_psycopg, "initialize", ask_when_it_is_cut_off)
    # An option of the engine's: else nothing of SQLAlchemy is used.
    with kombu_connection(tables.broker_url, pool_pre_ping=False) as connection:
        send(connection, "x")

        assert cut
        assert get(connection).payload == "x"


def test_a_publisher_whose_session_was_lost_reconnects_if_asked_to_retry(
    connection: Connection, tables: Tables
) -> None:
    send(connection, "one")
    tables.end_sessions()

    send(connection, "two", retry=True, retry_policy={"max_retries": 2, "interval_start": 0})

    assert [get(connection).payload, get(connection).payload] == ["one", "two"]


def test_a_publisher_whose_session_was_lost_fails_once_if_not(connection: Connection, tables: Tables) -> None:
    producer = connection.Producer()
    producer.publish("one", routing_key="q")
    tables.end_sessions()

    with pytest.raises(OperationalError):
        producer.publish("two", routing_key="q")
    producer.publish("three", routing_key="q")

    assert [get(connection).payload, get(connection).payload] == ["one", "three"]


def test_what_finished_after_its_session_was_lost_is_not_run_again(
    connection: Connection, tables: Tables
) -> None:
    send(connection, "x")
    message = get(connection)
    tables.end_sessions()
    with pytest.raises(SessionLost):
        message.ack()
    connection.close()

    with kombu_connection(tables.broker_url, sweep_interval=0.05) as again:
        wait_until(lambda: consume_for_a_moment(again) or not tables.messages)


def test_what_others_took_meanwhile_is_theirs(connection: Connection, tables: Tables) -> None:
    send(connection, "x")
    message = get(connection)
    tables.end_sessions()
    with kombu_connection(tables.broker_url, sweep_interval=0.05) as other:
        wait_until(lambda: consume_for_a_moment(other) or not tables.messages[0]["leased_by"])
        theirs = get(other)
        with pytest.raises(SessionLost):
            message.ack()
        connection.close()
        with kombu_connection(tables.broker_url, sweep_interval=0.05) as again:
            consume_for_a_moment(again)
            consume_for_a_moment(again)
        assert len(tables.messages) == 1
        theirs.ack()
    assert tables.messages == []


def test_what_is_still_worked_on_is_kept_by_the_next_session(tables: Tables) -> None:
    received: list[Any] = []
    with kombu_connection(tables.broker_url) as sender:
        for number in range(2):
            send(sender, number)
    first = Connection(tables.broker_url)
    kept, dropped = get(first), get(first)
    number = tables.messages[0]["leased_by"]
    tables.end_sessions()
    first.close()
    with kombu_connection(tables.broker_url, sweep_interval=0.05) as next_one:
        del dropped
        with Consumer(next_one, [Queue("q")], callbacks=[lambda _, message: received.append(message)]):
            wait_until(lambda: _turned(next_one) and received)
            assert [message.payload for message in received] == [1]
            assert tables.messages[0]["leased_by"] not in (None, number)
            kept.ack()
            assert [message["leased_by"] is None for message in tables.messages] == [False]


def test_what_is_dropped_after_it_was_kept_comes_again(tables: Tables) -> None:
    received: list[Any] = []
    with kombu_connection(tables.broker_url) as sender:
        send(sender, "x")
    first = Connection(tables.broker_url)
    kept = [get(first)]
    tables.end_sessions()
    first.close()
    with (
        kombu_connection(tables.broker_url, sweep_interval=0.05) as next_one,
        Consumer(next_one, [Queue("q")], callbacks=[lambda body, _: received.append(body)], no_ack=True),
    ):
        for _ in range(5):
            assert _turned(next_one)
        assert received == []
        kept.clear()
        wait_until(lambda: _turned(next_one) and received == ["x"])


def test_what_refers_to_nothing_but_itself_is_not_kept(tables: Tables) -> None:
    with kombu_connection(tables.broker_url) as sender:
        send(sender, "x")
    first = Connection(tables.broker_url)
    gc.disable()
    try:
        message = get(first)
        message.itself = message
        del message
        tables.end_sessions()
        first.close()
        received: list[Any] = []
        with (
            kombu_connection(tables.broker_url, sweep_interval=0.05) as next_one,
            Consumer(next_one, [Queue("q")], callbacks=[lambda body, _: received.append(body)], no_ack=True),
        ):
            wait_until(lambda: _turned(next_one) and received == ["x"], timeout=10)
    finally:
        gc.enable()


def test_what_a_lost_session_was_to_give_back_is_given_back(tables: Tables) -> None:
    """The process has one number over all its sessions, so no sweeper frees what it leaves lying."""
    with kombu_connection(tables.broker_url) as sender:
        send(sender, "x")
    proof = Proof()
    with psycopg.connect(tables.url, autocommit=True) as proving:
        assert proof.hold(proving)
        options = {"number_of_process": lambda: proof.number, "sweep_interval": 0.05}
        first = Connection(tables.broker_url, transport_options=options)
        message = get(first)
        settler = first.transport.settler
        lease, _ = first.default_channel.window.leases[message.delivery_tag]
        settler.settle(Settlement.RETURNED, lease)  # as in an event loop: the next turn would write it
        del message
        tables.end_sessions()
        with pytest.raises(SessionLost):
            first.transport.session.one("SELECT 1 AS one")
        first.close()
        received: list[Any] = []
        with (
            kombu_connection(tables.broker_url, **options) as next_one,
            Consumer(next_one, [Queue("q")], callbacks=[lambda body, _: received.append(body)], no_ack=True),
        ):
            wait_until(lambda: _turned(next_one) and received == ["x"], timeout=10)


def _turned(connection: Connection) -> bool:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.05)
    return True


# -- forks


def _in_child(action: Any) -> int:
    """Run in a forked child; give its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_does_not_disturb_the_session_of_its_parent(connection: Connection, tables: Tables) -> None:
    send(connection, "x")
    message = get(connection)

    def publish_from_child() -> None:
        assert not connection.connected
        send(connection, "from the child", "other")
        connection.close()

    assert _in_child(publish_from_child) == 0
    message.ack()
    assert [each["queue"] for each in tables.messages] == ["other"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_does_not_keep_the_session_of_a_dead_parent_alive(
    connection: Connection, tables: Tables
) -> None:
    send(connection, "x")
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        mine = Connection(tables.broker_url)
        get(mine)
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(writer, str(child).encode())
        signal.pause()
    child = int(os.read(reader, 20))
    try:
        assert tables.messages[0]["leased_by"]
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        wait_until(lambda: consume_for_a_moment(connection) or not tables.messages[0]["leased_by"], timeout=5)
        os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


# -- refusals


def test_a_database_that_is_not_migrated_is_named_and_not_retried(empty_database_url: str) -> None:
    with kombu_connection(f"jobbridge+{empty_database_url}") as connection:
        with pytest.raises(BrokerNotMigrated, match="Run `jobbridge migrate`") as raised:
            connection.connect()
        assert not isinstance(raised.value, connection.connection_errors + connection.channel_errors)
        assert raised.value.hint == "Run `jobbridge migrate`."


def test_a_wrong_password_is_named_and_not_retried(tables: Tables) -> None:
    with psycopg.connect(tables.url) as known:
        password = known.info.password
    with (
        kombu_connection(tables.broker_url.replace(password, "wrong")) as connection,
        pytest.raises(BrokerRefused, match=r"password authentication failed.*Correct the user"),
    ):
        connection.connect()


def test_a_database_that_is_not_there_is_named_and_not_retried(tables: Tables) -> None:
    with (
        kombu_connection(tables.broker_url + "_none") as connection,
        pytest.raises(BrokerRefused, match="does not exist"),
    ):
        connection.connect()


def test_a_server_that_does_not_answer_can_be_retried() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with kombu_connection(f"jobbridge+postgresql://u:secret@127.0.0.1:{port}/d") as connection:
        with pytest.raises(connection.recoverable_connection_errors) as raised:
            connection.connect()
        assert "secret" not in str(raised.value)
        with pytest.raises(OperationalError):
            connection.ensure_connection(max_retries=1, interval_start=0)


def test_the_next_server_of_a_list_is_tried(tables: Tables) -> None:
    with kombu_connection(f"jobbridge+postgresql://u@127.0.0.1:1/d;{tables.broker_url}") as connection:
        connection.ensure_connection(max_retries=2, interval_start=0)
        send(connection, "x")
    assert len(tables.messages) == 1

"""The transport as any user of kombu meets it: order, priority, time, routing, settlement, publishing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from queue import Empty
from statistics import median
from typing import Any

import psycopg
import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import ChannelError, OperationalError
from kombu.transport.virtual.base import NotEquivalentError
from sqlalchemy import create_engine
from sqlalchemy.orm import Session as OrmSession

from jobbridge.broker import PublishFailed, delete_waiting, publishing_on, queue_depths
from jobbridge.errors import UnsupportedOption
from tests.integration.broker.support import Tables, kombu_connection
from tests.support import wait_until


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    tables = Tables(database_url)
    yield tables
    tables.connection.close()


@pytest.fixture
def connection(tables: Tables) -> Iterator[Connection]:
    with kombu_connection(tables.broker_url, sweep_interval=0.2) as connection:
        yield connection


def send(connection: Connection, body: Any, queue: str = "q", **options: Any) -> None:
    connection.Producer().publish(body, exchange="", routing_key=queue, retry=False, **options)


def get(connection: Connection, queue: str = "q", *, no_ack: bool = True) -> Any:
    return connection.default_channel.basic_get(queue, no_ack=no_ack)


def drain(connection: Connection, queue: str = "q", timeout: float = 0.3) -> list[Any]:
    """Everything that a consumer of the queue gets until nothing comes."""
    bodies: list[Any] = []

    def received(body: Any, message: Any) -> None:
        bodies.append(body)
        message.ack()

    with Consumer(connection, [Queue(queue)], callbacks=[received]):
        while True:
            try:
                connection.drain_events(timeout=timeout)
            except TimeoutError:
                return bodies


# -- delivery


def test_messages_come_in_the_order_in_which_they_were_sent(connection: Connection) -> None:
    for number in range(30):
        send(connection, number)

    assert drain(connection) == list(range(30))


def test_higher_priority_first_then_oldest(connection: Connection) -> None:
    for number, priority in enumerate([0, 9, 5, 9, 0, 3]):
        send(connection, (number, priority), priority=priority)

    assert drain(connection) == [[1, 9], [3, 9], [2, 5], [5, 3], [0, 0], [4, 0]]


def test_what_was_sent_is_what_comes(connection: Connection) -> None:
    send(
        connection,
        {"text": "ü\x00\ud800"},
        headers={"argsrepr": "\x00", "at": datetime(2026, 1, 1, tzinfo=UTC)},
    )
    send(connection, b"\x00\xff raw", content_type="application/data", content_encoding="binary")
    send(connection, {"big": "x" * 300_000}, compression="gzip")

    first, second, third = (get(connection) for _ in range(3))
    assert first.payload == {"text": "ü\x00\ud800"}
    assert first.headers["argsrepr"] == "\x00"
    assert second.body == b"\x00\xff raw"
    assert third.payload == {"big": "x" * 300_000}


def test_names_of_queues_may_be_long_and_strange(connection: Connection) -> None:
    for name in ("x" * 300, "Grüße; DROP TABLE\"'%s", "%(queue)s", "a b"):
        send(connection, name, name)
        assert drain(connection, name, timeout=0.1) == [name]


def test_a_consumer_gets_no_more_than_its_window(connection: Connection, tables: Tables) -> None:
    for number in range(10):
        send(connection, number)
    received: list[Any] = []
    channel = connection.default_channel
    channel.basic_qos(0, 4, False)
    with Consumer(channel, [Queue("q")], callbacks=[lambda _, message: received.append(message)]):
        for _ in range(4):
            connection.drain_events(timeout=2)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.2)
        assert len([each for each in tables.messages if each["leased_by"]]) == 4

        received[0].ack()
        connection.drain_events(timeout=2)
    assert len(received) == 5


def test_a_notification_wakes_the_consumer_at_once(connection: Connection, tables: Tables) -> None:
    bodies: list[Any] = []
    with (
        Consumer(connection, [Queue("q")], callbacks=[lambda body, _: bodies.append(body)], no_ack=True),
        kombu_connection(tables.broker_url) as sender,
    ):
        waits = []
        for number in range(5):
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.05)
            send(sender, number)
            started = time.monotonic()
            connection.drain_events(timeout=4)
            waits.append(time.monotonic() - started)
    assert bodies == list(range(5))
    assert median(waits) < 0.5, "the interval of polling, not a notification, ended these waits"


def test_a_burst_of_which_only_the_first_notifies_comes_at_once(
    connection: Connection, tables: Tables
) -> None:
    bodies: list[Any] = []
    with (
        Consumer(connection, [Queue("q")], callbacks=[lambda body, _: bodies.append(body)], no_ack=True),
        kombu_connection(tables.broker_url) as sender,
    ):
        waits = []
        for burst in range(10):
            send(sender, (burst, 1))
            connection.drain_events(timeout=2)
            send(sender, (burst, 2))  # the queue was notified a moment ago
            started = time.monotonic()
            connection.drain_events(timeout=4)
            waits.append(time.monotonic() - started)
    assert len(bodies) == 20
    assert median(waits) < 0.7


def test_two_consumers_share_a_queue_and_nothing_comes_twice(connection: Connection, tables: Tables) -> None:
    for number in range(40):
        send(connection, number)
    with kombu_connection(tables.broker_url) as other:
        got = [get(each, no_ack=False).payload for _ in range(20) for each in (connection, other)]

    assert sorted(got) == list(range(40))


# -- time


def test_a_message_is_not_delivered_before_it_is_due(connection: Connection) -> None:
    due_at = datetime.now(UTC) + timedelta(seconds=0.6)
    send(connection, "later", headers={"eta": due_at.isoformat()})
    send(connection, "now")
    bodies: list[tuple[Any, datetime]] = []
    with Consumer(
        connection,
        [Queue("q")],
        callbacks=[lambda body, _: bodies.append((body, datetime.now(UTC)))],
        no_ack=True,
    ):
        connection.drain_events(timeout=2)
        connection.drain_events(timeout=2)

    assert [body for body, _ in bodies] == ["now", "later"]
    assert timedelta(0) <= bodies[1][1] - due_at < timedelta(seconds=0.5)


def test_many_that_are_due_together_come_in_order_of_priority(connection: Connection) -> None:
    eta = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    for number in range(20):
        send(connection, number, headers={"eta": eta}, priority=number % 10)

    got = drain(connection, timeout=1)
    assert sorted(got) == list(range(20))
    assert got[0] in (9, 19)


def test_an_expired_message_is_dropped_and_told(tables: Tables) -> None:
    expired: list[str] = []
    with kombu_connection(
        tables.broker_url, on_expired=lambda headers: expired.append(headers["id"])
    ) as connection:
        send(connection, "short", expiration=0.05, headers={"id": "a"})
        past = datetime.now(UTC) - timedelta(seconds=1)
        send(connection, "past", headers={"id": "b", "expires": past.isoformat()})
        send(connection, "long", expiration=60, headers={"id": "c"})
        wait_until(
            lambda: (
                tables.number("SELECT count(*) FROM jobbridge_broker.messages WHERE expires_at > now()") == 1
            )
        )

        assert drain(connection) == ["long"]
        assert sorted(expired) == ["a", "b"]
        assert tables.messages == []


def test_expired_messages_go_when_nobody_consumes_their_queue(tables: Tables) -> None:
    with kombu_connection(tables.broker_url, sweep_interval=0.1) as connection:
        send(connection, "x", "nobody", expiration=0.05)
        with Consumer(connection, [Queue("other")], callbacks=[print]):
            wait_until(lambda: _drained(connection) and not tables.messages)


def _drained(connection: Connection) -> bool:
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.05)
    return True


# -- settlement


def test_acknowledged_is_deleted(connection: Connection, tables: Tables) -> None:
    send(connection, "x")
    message = get(connection, no_ack=False)
    assert len(tables.messages) == 1

    message.ack()

    assert tables.messages == []


def test_a_requeued_message_comes_again_first_and_says_so(connection: Connection) -> None:
    send(connection, 1)
    send(connection, 2)
    first = get(connection, no_ack=False)
    assert first.delivery_info["redelivered"] is False

    first.requeue()

    again = get(connection, no_ack=False)
    assert (again.payload, again.delivery_info["redelivered"]) == (1, True)


def test_rejected_is_a_dead_letter(tables: Tables) -> None:
    dead: list[Any] = []
    with kombu_connection(
        tables.broker_url, on_dead_letter=lambda headers, reason: dead.append((headers["id"], reason))
    ) as connection:
        send(connection, "x", headers={"id": "7"}, correlation_id="7")
        get(connection, no_ack=False).reject()

    assert dead == [("7", "rejected")]
    assert tables.messages == []
    assert [(each["reason"], each["correlation_id"]) for each in tables.dead_letters] == [("rejected", "7")]


def test_after_too_many_deliveries_a_message_is_a_dead_letter(tables: Tables) -> None:
    dead: list[Any] = []
    with kombu_connection(
        tables.broker_url, max_deliveries=3, on_dead_letter=lambda *arguments: dead.append(arguments)
    ) as connection:
        send(connection, "x", headers={"id": "7"})
        for _ in range(3):
            get(connection, no_ack=False).requeue()
        assert get(connection) is None

    assert [(headers["id"], reason) for headers, reason in dead] == [("7", "too_many_deliveries")]
    assert tables.dead_letters[0]["deliveries"] == 3


def test_a_hook_that_fails_stops_nothing(tables: Tables) -> None:
    def hook(*_: Any) -> None:
        raise RuntimeError("the hook")

    with kombu_connection(tables.broker_url, on_dead_letter=hook) as connection:
        send(connection, 1)
        send(connection, 2)
        get(connection, no_ack=False).reject()
        assert get(connection).payload == 2


def test_a_channel_that_closes_gives_back_uncounted(connection: Connection, tables: Tables) -> None:
    for number in range(3):
        send(connection, number)
    channel = connection.channel()
    for _ in range(3):
        assert channel.basic_get("q")

    channel.close()

    assert [(each["leased_by"], each["deliveries"], each["redelivered"]) for each in tables.messages] == (
        [(None, 0, True)] * 3
    )


def test_recover_gives_back(connection: Connection, tables: Tables) -> None:
    send(connection, 1)
    get(connection, no_ack=False)

    connection.default_channel.basic_recover(requeue=True)

    assert tables.messages[0]["leased_by"] is None


# -- routing


def test_a_fanout_reaches_every_queue_of_every_connection(connection: Connection, tables: Tables) -> None:
    exchange = Exchange("all", type="fanout")
    with kombu_connection(tables.broker_url) as other:
        for each, name in ((connection, "one"), (other, "two")):
            Queue(name, exchange, channel=each.default_channel).declare()
        Producer(connection, exchange=exchange).publish("hello", retry=False)
        assert get(connection, "one").payload == get(other, "two").payload == "hello"


def test_topics_are_routed_by_pattern(connection: Connection) -> None:
    exchange = Exchange("events", type="topic")
    for name, key in (("all", "#"), ("workers", "worker.#"), ("one", "*.online")):
        Queue(name, exchange, routing_key=key, channel=connection.default_channel).declare()
    for key in ("worker.online", "task.sent", "worker.a.b"):
        Producer(connection, exchange=exchange).publish(key, routing_key=key, retry=False)

    assert drain(connection, "all") == ["worker.online", "task.sent", "worker.a.b"]
    assert drain(connection, "workers") == ["worker.online", "worker.a.b"]
    assert drain(connection, "one") == ["worker.online"]


def test_direct_bindings_of_one_process_serve_another(connection: Connection, tables: Tables) -> None:
    exchange = Exchange("direct-one", type="direct")
    Queue("a", exchange, routing_key="key", channel=connection.default_channel).declare()
    with kombu_connection(tables.broker_url) as other:
        Producer(other).publish("x", exchange="direct-one", routing_key="key", retry=False)
        Producer(other).publish("y", exchange="direct-one", routing_key="another", retry=False)

    assert drain(connection, "a") == ["x"]


def test_an_unbound_queue_gets_nothing_more(connection: Connection) -> None:
    exchange = Exchange("all", type="fanout")
    queue = Queue("a", exchange, channel=connection.default_channel)
    queue.declare()
    queue.unbind_from(exchange)
    Producer(connection, exchange=exchange).publish("x", retry=False)

    assert get(connection, "a") is None


def test_what_leads_nowhere_goes_to_the_queue_for_it(tables: Tables) -> None:
    with kombu_connection(tables.broker_url, deadletter_queue="nowhere") as connection:
        Producer(connection).publish("x", exchange="unknown", routing_key="k", retry=False)
        assert get(connection, "nowhere").payload == "x"


def test_an_exchange_cannot_change_its_type(connection: Connection) -> None:
    Exchange("e", type="topic", channel=connection.default_channel).declare()

    with pytest.raises(NotEquivalentError, match="'topic'"):
        Exchange("e", type="fanout", channel=connection.default_channel).declare()
    with pytest.raises(ChannelError, match="'headers'"):
        Exchange("h", type="headers", channel=connection.default_channel).declare()


# -- queues


def test_passive_declaration_counts_or_refuses(connection: Connection) -> None:
    channel = connection.default_channel
    with pytest.raises(ChannelError, match="NOT_FOUND"):
        channel.queue_declare("q", passive=True)

    channel.queue_declare("q")
    for _ in range(3):
        send(connection, "x")

    assert channel.queue_declare("q", passive=True).message_count == 3
    assert channel.queue_purge("q") == 3


def test_an_auto_delete_queue_goes_with_its_last_consumer(connection: Connection, tables: Tables) -> None:
    queue = Queue("temporary", Exchange("all", type="fanout"), auto_delete=True)
    with Consumer(connection, [queue], callbacks=[print]):
        send(connection, "x", "temporary")
        assert "temporary" in tables.queues

    assert "temporary" not in tables.queues
    assert tables.messages == []
    assert tables.rows("SELECT * FROM jobbridge_broker.bindings") == []


def test_an_exclusive_queue_goes_with_its_connection(connection: Connection, tables: Tables) -> None:
    with kombu_connection(tables.broker_url) as other:
        Queue("mine", exclusive=True, channel=other.default_channel).declare()
        assert "mine" in tables.queues

    assert "mine" not in tables.queues


def test_a_queue_that_nobody_uses_expires(connection: Connection, tables: Tables) -> None:
    Queue("unused", expires=0.1, channel=connection.default_channel).declare()
    with Consumer(connection, [Queue("other")], callbacks=[print]):
        wait_until(lambda: _drained(connection) and "unused" not in tables.queues)


def test_the_time_to_live_of_a_queue_is_that_of_its_messages(connection: Connection, tables: Tables) -> None:
    Queue("short", message_ttl=0.05, channel=connection.default_channel).declare()
    send(connection, "x", "short")
    assert tables.messages[0]["expires_at"] is not None

    wait_until(
        lambda: tables.number("SELECT count(*) FROM jobbridge_broker.messages WHERE expires_at > now()") == 0
    )
    assert get(connection, "short") is None


def test_a_simple_queue(connection: Connection) -> None:
    queue = connection.SimpleQueue("simple")
    queue.put({"a": 1})
    assert queue.qsize() == 1
    message = queue.get(timeout=1)
    message.ack()
    with pytest.raises(Empty):
        queue.get(block=False)
    queue.close()


# -- publishing


def test_publishing_on_a_connection_is_part_of_its_transaction(
    connection: Connection, database_url: str
) -> None:
    with psycopg.connect(database_url) as caller:
        with publishing_on(caller):
            send(connection, "undone")
        caller.rollback()
        with publishing_on(caller):
            send(connection, "done")
        assert get(connection) is None
        caller.commit()

    assert drain(connection) == ["done"]


def test_publishing_on_a_connection_is_one_statement(connection: Connection, database_url: str) -> None:
    Queue("q", channel=connection.default_channel).declare()
    with psycopg.connect(database_url) as caller:
        before = caller.info.transaction_status
        with publishing_on(caller):
            connection.Producer().publish("x", routing_key="q", declare=[Queue("q")], retry=False)
        # Each statement moves the transaction's command counter on.
        row = caller.execute("SELECT max(cmin::text::int) FROM jobbridge_broker.messages").fetchone()
    assert before == psycopg.pq.TransactionStatus.IDLE
    assert row == (0,)


def sqlalchemy_connection(url: str) -> Any:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://")).connect()


def sqlalchemy_session(url: str) -> Any:
    return OrmSession(create_engine(url.replace("postgresql://", "postgresql+psycopg://")))


@pytest.mark.parametrize("opened", [sqlalchemy_connection, sqlalchemy_session, psycopg.connect])
def test_publishing_on_any_connection_over_psycopg(
    connection: Connection, database_url: str, opened: Callable[[str], Any]
) -> None:
    caller = opened(database_url)
    with publishing_on(caller):
        send(connection, "x")
    caller.commit()
    caller.close()
    if (bind := getattr(caller, "bind", None) or getattr(caller, "engine", None)) is not None:
        bind.dispose()

    assert drain(connection) == ["x"]


def test_publishing_on_something_else_is_refused() -> None:
    with pytest.raises(UnsupportedOption, match=r"builtins\.dict.*psycopg 3"), publishing_on({}):
        raise AssertionError


def test_a_publish_that_fails_in_the_callers_transaction_reaches_the_caller(
    connection: Connection, database_url: str
) -> None:
    with psycopg.connect(database_url) as caller:
        with pytest.raises(psycopg.Error):
            caller.execute("SELECT 1/0")
        with publishing_on(caller), pytest.raises(PublishFailed, match=r"aborted.*roll the transaction back"):
            connection.Producer().publish("x", routing_key="q", retry=True)

    with publishing_on(caller), pytest.raises(OperationalError, match="closed"):
        connection.Producer().publish("x", routing_key="q", retry=True)


def test_a_message_that_postgres_refuses_is_an_error_of_kombu(connection: Connection) -> None:
    with pytest.raises(OperationalError, match="not stored"):
        send(connection, "x", correlation_id="\x00")
    send(connection, "y")
    assert drain(connection) == ["y"]


def test_declaring_in_a_callers_transaction_locks_nobody_out(connection: Connection, tables: Tables) -> None:
    with psycopg.connect(tables.url) as caller, kombu_connection(tables.broker_url) as other:
        with publishing_on(caller):
            connection.Producer().publish("x", routing_key="new", declare=[Queue("new")], retry=False)
        Queue("new", channel=other.default_channel).declare()
        send(other, "y", "new")
        assert get(other, "new").payload == "y"
        caller.commit()
        assert get(other, "new").payload == "x"


def test_a_batch_is_stored_together(connection: Connection, tables: Tables) -> None:
    producer = connection.Producer()
    assert producer.supports_batch_publish
    with producer.batch() as batch:
        for number in range(100):
            producer.publish(number, routing_key="q")
        assert tables.messages == []
        batch.flush()
        producer.publish("last", routing_key="q")

    assert drain(connection) == [*range(100), "last"]


def test_a_batch_that_is_left_with_an_error_stores_nothing(connection: Connection, tables: Tables) -> None:
    producer = connection.Producer()
    with suppress(RuntimeError), producer.batch():
        producer.publish("x", routing_key="q")
        raise RuntimeError

    assert tables.messages == []


# -- looking at what waits


def test_waiting_messages_can_be_deleted_and_held_ones_not(connection: Connection, tables: Tables) -> None:
    for correlation_id in ("a", "a", "b"):
        send(connection, "x", correlation_id=correlation_id)
    get(connection, no_ack=False)

    assert delete_waiting(tables.connection, "a") == 1
    assert delete_waiting(tables.connection, "unknown") == 0
    assert len(tables.messages) == 2


def test_depths(connection: Connection, tables: Tables) -> None:
    eta = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for headers in ({}, {}, {}, {"eta": eta}):
        send(connection, "x", headers=headers)
    get(connection, no_ack=False)
    get(connection, no_ack=False).reject()
    Queue("empty", channel=connection.default_channel).declare()
    with Consumer(connection, [Queue("empty")], callbacks=[print]):
        depths = {depth.queue: depth for depth in queue_depths(tables.connection)}

    q = depths["q"]
    assert (q.ready, q.scheduled, q.leased, q.dead_letters, q.consumers) == (1, 1, 1, 1, 0)
    assert depths["empty"].consumers == 1


def test_what_celery_sends_empty_is_not_stored_and_comes_out_as_it_was(
    connection: Connection, tables: Tables
) -> None:
    empty = {
        "shadow": None, "eta": None, "expires": None, "group": None, "group_index": None, "parent_id": None,
        "stamped_headers": None, "timelimit": [None, None],
    }  # fmt: skip
    of_task = {"lang": "py", "task": "t", "id": "1", "retries": 0, "mine": None, **empty}
    told = [of_task, {**of_task, "group": "g", "timelimit": [None, 5]}, {"mine": None, **empty}]
    for headers in told:
        send(connection, 1, headers=headers)

    keys = [set(message["headers"]) for message in tables.messages]
    assert keys[0] == {"lang", "task", "id", "retries", "mine"}
    assert keys[1] == keys[0] | {"group", "timelimit"}
    assert keys[2] == {"mine", *empty}, "not a task's"
    assert [get(connection).headers for _ in told] == told

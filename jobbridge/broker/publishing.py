"""Storing messages: one statement, one round trip, on our session or on the caller's connection.

A publish is a single statement that routes, inserts and notifies. `NOTIFY` is part of the transaction, so consumers
wake when, and only if, it commits.

Whoever writes something else along with a message may have both in one statement: `publishing_by` hands him the
message as a part of one (`Parcel`), instead of storing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]  # not in the stubs
from kombu.utils.json import JSONEncoder

from jobbridge.broker.consume.recheck import Throttle
from jobbridge.broker.errors import PublishFailed
from jobbridge.broker.headers import lean_headers
from jobbridge.broker.parcels import Parcel
from jobbridge.broker.routing import CHANNEL_OF_QUEUE
from jobbridge.broker.topology import forget_declared
from jobbridge.postgres.caller_connection import driver_connection

if TYPE_CHECKING:
    from jobbridge.broker.channel import Channel

_COLUMNS: LiteralString = (
    "queue, priority, due_at, expires_at, correlation_id, content_type, content_encoding, "
    "headers, properties, body"
)
_VALUES: LiteralString = """
        %(message_priority)s::smallint,
        CASE WHEN %(due_at)s::timestamptz > clock_timestamp() THEN %(due_at)s::timestamptz END,
        LEAST(
            %(message_expires_at)s::timestamptz,
            clock_timestamp() + %(ttl)s::interval,
            clock_timestamp() + queues.message_ttl
        ),
        %(correlation_id)s::text,
        %(content_type)s::text,
        %(content_encoding)s::text,
        %(headers)s::json,
        %(properties)s::json,
        %(body)s::bytea"""
# Who waits for something due later looks again within poll_interval; only what is due before that needs a call.
_NOTIFIED: LiteralString = f"""CASE
    WHEN due_at IS NULL THEN CASE WHEN %(is_notified)s::boolean THEN pg_notify({CHANNEL_OF_QUEUE}, '') END
    WHEN due_at < clock_timestamp() + interval '60 seconds' THEN pg_notify({CHANNEL_OF_QUEUE}, 'due')
END"""
_NOTIFY = f"SELECT {_NOTIFIED}\nFROM put\n"

# One row whether the queue was declared or not, as in kombu's other virtual transports.
PUBLISH_TO_QUEUE = f"""
WITH put AS (
    INSERT INTO jobbridge_broker.messages ({_COLUMNS})
    SELECT target.queue, {_VALUES}
    FROM (SELECT %(routing_key)s::text AS queue) AS target
    LEFT JOIN jobbridge_broker.queues ON queues.name = target.queue
    RETURNING queue, due_at
)
{_NOTIFY}"""  # noqa: S608  # put together from the constants above

# Bindings are read in the same statement, so a queue that was bound a moment ago gets the message.
PUBLISH_TO_EXCHANGE = f"""
WITH put AS (
    INSERT INTO jobbridge_broker.messages ({_COLUMNS})
    SELECT target.queue, {_VALUES}
    FROM (
        SELECT DISTINCT bindings.queue
        FROM jobbridge_broker.exchanges
        JOIN jobbridge_broker.bindings ON bindings.exchange = exchanges.name
        WHERE exchanges.name = %(exchange)s::text
            AND CASE exchanges.type
                WHEN 'fanout' THEN true
                WHEN 'topic' THEN '.' || %(routing_key)s::text ~ bindings.pattern
                ELSE bindings.routing_key = %(routing_key)s::text
            END
    ) AS target
    LEFT JOIN jobbridge_broker.queues ON queues.name = target.queue
    RETURNING queue, due_at
)
{_NOTIFY}"""  # noqa: S608  # put together from the constants above

_TOLD: Final[LiteralString] = f"count({_NOTIFIED})"

# What is stored is also logged, for each message: no spaces.
_compact: Final = JSONEncoder(separators=(",", ":")).encode

# The same for whoever writes a row along with it: only if that was written.
_PUT_WITH_ROW: Final[LiteralString] = f"""put AS (
    INSERT INTO jobbridge_broker.messages ({_COLUMNS})
    SELECT target.queue, {_VALUES}
    FROM moved
    CROSS JOIN (SELECT %(routing_key)s::text AS queue) AS target
    LEFT JOIN jobbridge_broker.queues ON queues.name = target.queue
    RETURNING queue, due_at
)"""  # noqa: S608  # put together from the constants above

# And most messages, for less: without a second look at what was written, and at times that they do not have.
_PUT_LAST: Final[LiteralString] = f"""INSERT INTO jobbridge_broker.messages AS message (
    queue, priority, expires_at, correlation_id, content_type, content_encoding, headers, properties, body
)
SELECT %(routing_key)s::text, %(message_priority)s::smallint, clock_timestamp() + queues.message_ttl,
    %(correlation_id)s::text, %(content_type)s::text, %(content_encoding)s::text,
    %(headers)s::json, %(properties)s::json, %(body)s::bytea
FROM moved
LEFT JOIN jobbridge_broker.queues ON queues.name = %(routing_key)s::text
RETURNING CASE WHEN %(is_notified)s::boolean THEN pg_notify({CHANNEL_OF_QUEUE}, '') END"""  # noqa: S608  # see above
_TIMES: Final = ("due_at", "message_expires_at", "ttl")

_caller: ContextVar[Caller | None] = ContextVar("publishing_on", default=None)
_writer: ContextVar[Callable[[Parcel], bool] | None] = ContextVar("publishing_by", default=None)
_held: ContextVar[datetime | str | None] = ContextVar("publishing_held", default=None)
_throttle = Throttle()
#: Where this process has sent to and a queue got it: database, exchange, routing key.
_leading: set[tuple[str, str, str]] = set()
_MOST_LEADING = 1000

#: When a held message is due: never, until somebody says when.
HELD: Final = "infinity"


@dataclass(kw_only=True)
class Caller:
    """Whose transaction it is.

    Attributes:
        connection: His.
        is_brief: It will be committed soon.
        stored: How many messages were stored in it: one for each queue that they lead to.
    """

    connection: psycopg.Connection[Any]
    is_brief: bool
    stored: int = 0


@contextmanager
def publishing_on(connection: object, *, is_brief: bool = False) -> Iterator[Caller]:
    """Publish on the caller's connection, in its transaction: its commit sends, its rollback leaves nothing.

    Nothing here commits. A publish that fails raises, and leaves the transaction to be rolled back.

    Args:
        connection: Of psycopg 3, or of SQLAlchemy or Django over psycopg 3; or a SQLAlchemy session.
        is_brief: The transaction will be committed within a fraction of a second. Then a process that publishes a lot
            notifies less often; with a long transaction, consumers would notice after `poll_interval` only.

    Yields:
        What counts the messages that were stored.

    Raises:
        UnsupportedOption: It is none of these.
    """
    caller = Caller(connection=driver_connection(connection), is_brief=is_brief)
    token = _caller.set(caller)
    try:
        yield caller
    finally:
        _caller.reset(token)


@contextmanager
def publishing_by(write: Callable[[Parcel], bool]) -> Iterator[None]:
    """Hand what is published inside to `write`, which stores it and says whether it did; its errors pass as they are.

    For messages that go to a queue by its name (the default exchange): others may lead to no queue, or to several.
    """
    token = _writer.set(write)
    try:
        yield
    finally:
        _writer.reset(token)


@contextmanager
def publishing_held(until: datetime | None, *, is_woken: bool = False) -> Iterator[None]:
    """Hold back what is published inside until then, whatever its headers say.

    Args:
        until: An aware instant; None: it is due at once.
        is_woken: Somebody makes it due (`jobbridge.wake_job`); without an instant it waits for that for ever.
    """
    token = _held.set(HELD if until is None and is_woken else until)
    try:
        yield
    finally:
        _held.reset(token)


def needs_no_session() -> bool:
    """Whether what is published now goes another way than over a session of the broker's own."""
    return _caller.get() is not None or _writer.get() is not None


def callers_connection() -> psycopg.Connection[Any] | None:
    """Give the connection that `publishing_on` named, if any."""
    caller = _caller.get()
    return None if caller is None else caller.connection


def publish(channel: Channel, message: Mapping[str, Any], exchange: str, routing_key: str) -> int:
    """Store a message for each queue that its exchange and key lead to.

    Returns:
        How many queues that were.

    Raises:
        PublishFailed: It was not stored.
        SessionLost: Our connection is gone; kombu reconnects and tries again if it was asked to.
        NotNow: Postgres could not do it; kombu tries again likewise.
    """
    statement = PUBLISH_TO_EXCHANGE if exchange else PUBLISH_TO_QUEUE
    parameters = parameters_of(message, exchange, routing_key)
    caller, write = _caller.get(), _writer.get()
    if write is not None and not exchange:
        hand_over(channel.connection.database, parameters, write)
        return 1
    key = (channel.connection.database, routing_key)
    if is_throttled := not exchange and _commits_soon():
        parameters["is_notified"] = _throttle.is_needed(key, monotonic())
    try:
        if caller is not None:
            # Prepared as the caller has it: behind a pooler of his, that is not at all.
            stored = caller.connection.execute(statement, parameters).rowcount
            caller.stored += stored
        else:
            stored = channel.own_session.run(statement, parameters)
    except (psycopg.Error, ValueError) as error:
        raise PublishFailed(f"The message was not stored: {error}") from error
    if is_throttled and parameters["is_notified"] and parameters["due_at"] is None:
        _throttle.note(key, monotonic())
    led = (channel.connection.database, exchange, routing_key)
    if stored:
        if len(_leading) >= _MOST_LEADING:
            _leading.clear()
        _leading.add(led)
    elif not exchange or caller is not None or led in _leading:
        # What this process declared may have been deleted since: whoever sends again declares it anew. Of an exchange
        # that led nowhere before, as that of the events where nobody listens, there is nothing to say.
        _leading.discard(led)
        forget_declared(channel.connection.database)
        channel.connection.client.declared_entities.clear()
    return stored


def hand_over(database: str, parameters: dict[str, Any], write: Callable[[Parcel], bool]) -> None:
    """Hand a message for a queue to `write`, as `publishing_by` does; what that raises passes.

    Args:
        database: The transport's name for it.
        parameters: Of the message, as `parameters_of` gives them.
        write: Stores it, and says whether it did.
    """
    key = (database, parameters["routing_key"])
    if is_throttled := _commits_soon():
        parameters["is_notified"] = _throttle.is_needed(key, monotonic())
    last = _PUT_LAST if all(parameters[name] is None for name in _TIMES) else None
    is_stored = write(Parcel(parameters=parameters, put=_PUT_WITH_ROW, told=_TOLD, last=last))
    if is_throttled and is_stored and parameters["is_notified"] and parameters["due_at"] is None:
        _throttle.note(key, monotonic())


def _commits_soon() -> bool:
    caller = _caller.get()
    return caller is None or caller.is_brief


def parameters_of(message: Mapping[str, Any], exchange: str, routing_key: str) -> dict[str, Any]:
    """Take a kombu message apart into the parameters of both statements."""
    headers, properties = message["headers"], message["properties"]
    body = message["body"]
    return {
        "exchange": exchange,
        "routing_key": routing_key,
        "is_notified": True,
        "message_priority": _priority(properties.get("priority")),
        "due_at": _held.get() or _instant(headers.get("eta")),
        "message_expires_at": _instant(headers.get("expires")),
        "ttl": _time_to_live(properties.get("expiration")),
        "correlation_id": properties.get("correlation_id"),
        "content_type": message.get("content-type"),
        "content_encoding": message.get("content-encoding"),
        "headers": _compact(lean_headers(headers)),
        "properties": _compact(properties),
        "body": body.encode() if isinstance(body, str) else bytes(body or b""),
    }


def _priority(value: Any) -> int:
    try:
        return min(max(int(value), 0), 9)
    except (TypeError, ValueError):
        return 0


def _instant(value: Any) -> datetime | None:
    """Read Celery's `eta` or `expires` header; kombu's pidbox has seconds in a header of the same name."""
    if isinstance(value, str) and value:
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _time_to_live(value: Any) -> timedelta | None:
    """Read AMQP's `expiration` property: milliseconds, as text."""
    try:
        return None if value is None else timedelta(milliseconds=max(float(value), 0.0))
    except (TypeError, ValueError):
        return None


class PublishBatch:
    """Messages that `Producer.batch()` collects, stored together in one transaction."""

    def __init__(self, channel: Channel, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._waiting: list[tuple[str, dict[str, Any]]] = []

    def publish(self, message: Any, *, exchange: str = "", routing_key: str = "", **_: Any) -> None:
        prepared = self.channel.prepared(message, exchange, routing_key)
        statement = PUBLISH_TO_EXCHANGE if exchange else PUBLISH_TO_QUEUE
        self._waiting.append((statement, parameters_of(prepared, exchange, routing_key)))
        if len(self._waiting) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        by_statement: dict[str, list[dict[str, Any]]] = {}
        for statement, parameters in waiting:
            by_statement.setdefault(statement, []).append(parameters)
        try:
            self._store(by_statement)
        except Exception as error:
            raise BatchPublishError("The batch was not stored.") from error

    def _store(self, by_statement: Mapping[str, list[dict[str, Any]]]) -> None:
        caller = callers_connection()
        if caller is not None:
            for statement, rows in by_statement.items():
                caller.cursor().executemany(statement, rows)
        elif by_statement:
            with self.channel.own_session.transaction():
                for statement, rows in by_statement.items():
                    self.channel.own_session.run_many(statement, rows)

    def discard(self) -> None:
        self._waiting.clear()

    def close(self) -> None:
        self._waiting.clear()

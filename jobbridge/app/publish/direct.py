"""A message on its way to a queue without kombu's producer, channel and declarations: the same message.

kombu makes an AMQP message in a dozen calls, which cost a client more than the statement that stores it. They say
nothing new for a queue to which this process has sent before. So the first message to a queue goes over kombu, which
connects and declares it; those after it are put together here. `tests/integration/app/test_short_way.py` holds that
nobody can tell them apart.

Source: kombu 5.7, messaging.py `Producer.publish`, transport/virtual/base.py `prepare_message`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from kombu import serialization
from kombu.entity import maybe_delivery_mode

from jobbridge.app.publish.message.encryption import sealed_message
from jobbridge.app.publish.message.size import check_body
from jobbridge.app.routing import unroutable
from jobbridge.broker import hand_over, is_declared, parameters_of, publishing_on
from jobbridge.postgres.prepared import prepared
from jobbridge.store.database import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobbridge.app.application import Celery
    from jobbridge.broker import Parcel
    from jobbridge.postgres.caller_connection import DriverConnection


class DirectWay:
    """To which queues of one app's broker messages may go directly."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.database: str | None = None  #: As the transport names it; None: nothing was sent yet.
        self._queues: dict[str, Any] = {}

    def learn(self, producer: Any, publish_options: Mapping[str, Any]) -> None:
        """Note what a message went over that was sent by kombu."""
        declared: Sequence[Any] = publish_options.get("declare") or ()
        if publish_options.get("exchange") or len(declared) != 1:
            return
        database = getattr(producer.channel.connection, "database", None)
        if database is not None:
            self.database = database
            self._queues[publish_options["routing_key"]] = declared[0]

    def leads_to(self, publish_options: Mapping[str, Any]) -> bool:
        """Whether a message with these options of kombu's may go directly."""
        declared: Sequence[Any] = publish_options.get("declare") or ()
        database = self.database
        if database is None or len(declared) != 1 or publish_options.get("exchange"):
            return False
        queue = publish_options["routing_key"]
        return self._queues.get(queue) is declared[0] and is_declared(database, queue)

    def send(self, body: Any, publish_options: Mapping[str, Any], write: Callable[[Parcel], bool]) -> None:
        """Hand the message to `write`, as kombu and the broker do.

        Args:
            body: Arguments and callbacks, not yet serialized.
            publish_options: As `leads_to` was asked.
            write: Stores it, and says whether it did; what it raises passes.

        Raises:
            EncodeError: An argument cannot be serialized.
        """
        assert self.database is not None  # leads_to
        data, publish_options = sealed_message(self._app, body, publish_options)
        if data is body:
            content_type, content_encoding, data = serialization.dumps(
                body, serializer=publish_options.get("serializer")
            )
        else:
            content_type, content_encoding = (
                publish_options[each] for each in ("content_type", "content_encoding")
            )
        queue, expiration = publish_options["routing_key"], publish_options.get("expiration")
        properties: dict[str, Any] = {
            "correlation_id": publish_options["correlation_id"],
            "reply_to": publish_options["reply_to"],
            "delivery_mode": maybe_delivery_mode(publish_options["delivery_mode"]),
        }
        if expiration is not None:
            properties["expiration"] = str(int(expiration * 1000))  # milliseconds, as in AMQP
        properties["delivery_info"] = {"exchange": "", "routing_key": queue}
        properties["priority"] = publish_options.get("priority") or 0
        message = {
            "body": data,
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": publish_options["headers"],
            "properties": properties,
        }
        hand_over(self.database, parameters_of(message, "", queue), write)


def over_kombu(app: Celery, producer: Any, body: Any, options: Mapping[str, Any]) -> Any:
    """Send a message as kombu does, and note what it went over.

    Args:
        app: Whose broker.
        producer: None: one of the app's.
        body: Arguments and callbacks, not yet serialized.
        options: Of `Producer.publish`.

    Raises:
        TooLarge: Nothing was sent.
    """
    check_body(app, body, options)
    return _over_kombu(app, producer, *sealed_message(app, body, options))


def _over_kombu(app: Celery, producer: Any, body: Any, options: Mapping[str, Any]) -> Any:
    if producer is not None:
        sent = producer.publish(body, **options)
        app.amqp.direct.learn(producer, options)
        return sent
    with app.producer_or_acquire() as own, own.connection._reraise_as_library_errors():
        return _over_kombu(app, own, body, options)


def publish_on(
    connection: DriverConnection, publish: Callable[[], Any], options: Mapping[str, Any], *, is_brief: bool
) -> Any:
    """Publish in the transaction of a connection, so that at least one queue gets it.

    Args:
        connection: Whose transaction it is.
        publish: Publishes one message over kombu, and declares its queue before.
        options: Of the message.
        is_brief: The transaction will be committed soon.

    Raises:
        UnsupportedOption: No queue is bound so. The transaction is to be rolled back.
    """
    with publishing_on(connection, is_brief=is_brief) as told:
        result = publish()
        if not told.stored:  # its queue was declared, and deleted since; now it is declared anew
            result = publish()
        if not told.stored:
            raise unroutable(options.get("exchange"), options.get("routing_key"))
        return result


def store(app: Celery, statement: LiteralString, parameters: Mapping[str, Any]) -> None:
    """Store messages that have no rows, in the caller's transaction if there is one.

    Raises:
        DatabaseUnavailable: Postgres is away. It may have them all the same.
        DatabaseError: It refused them. In the caller's transaction, psycopg's own error passes.
    """
    run, caller = prepared(statement).tuples, app.caller_connection
    if caller is not None:
        run(app.database.on(caller), parameters)
        return
    try:
        with app.database.connection() as own:
            run(own, parameters, prepare=True)
    except psycopg.Error as error:
        raise refusal(error) from error

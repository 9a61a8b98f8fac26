"""To which queue a message goes: an exchange and a routing key lead to it, and only it has a name that people know.

What the app declares (`task_queues`) decides, as it does on the broker; then what others have declared there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kombu import Queue
from kombu.common import Broadcast

from jobbridge.broker import queues_bound, queues_keyed, topic_pattern
from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseError, UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)


def queues_of(app: Celery, exchange: str, routing_key: str) -> list[str]:
    """Give the app's queues that an exchange leads to, in the order of their declaration."""
    return [queue.name for queue in app.amqp.queues.values() if _gets(queue, exchange, routing_key)]


def keyed_queues(app: Celery, routing_key: str) -> list[str]:
    """Name the queues, of the app's and those declared by others, that have this key, or a pattern that it fits."""
    own = {
        queue.name
        for queue in app.amqp.queues.values()
        for exchange, key in _bindings(queue)
        if exchange is not None
        and exchange.name
        and exchange.type != "fanout"
        and (key == routing_key or _leads(exchange, key, exchange.name, routing_key))
    }
    if app.shares_database_with_broker:
        own.update(app.database.run(lambda connection: queues_keyed(connection, routing_key)))
    return sorted(own)


def queue_of(app: Celery, exchange: Any, routing_key: str | None, *, chosen: Any = None) -> str:
    """Give the name of the queue that a message goes to; of several, the one that was chosen, or the first.

    Args:
        app: Whose queues.
        exchange: Or its name; empty: the routing key is the queue's name.
        routing_key: Empty: the default queue's name.
        chosen: The queue, or its name, that the sender named, if any.
    """
    found = _queues_reached(app, exchange, routing_key, ())
    return _one_of(found, chosen) or _key(app, routing_key)


def queue_to_send_to(
    app: Celery, publish_options: Mapping[str, Any], engine: Engine, *, chosen: Any, goes_on: bool
) -> str:
    """Give the name of the queue that a message is about to be sent to, as `queue_of` does.

    Args:
        app: Whose queues.
        publish_options: Of the producer; what they declare counts.
        engine: Which takes it there.
        chosen: The queue, or its name, that the sender named, if any.
        goes_on: A job that runs goes on by this message. On Temporal it stays where it is.

    Raises:
        UnsupportedOption: Exchange and routing key lead to no queue. A broker drops such a message without a word.
    """
    exchange, routing_key = publish_options.get("exchange"), publish_options.get("routing_key")
    found = _queues_reached(app, exchange, routing_key, publish_options.get("declare") or ())
    if found is not None and not found and _must_arrive(app, engine, goes_on=goes_on):
        raise unroutable(exchange, routing_key)
    return _one_of(found, chosen) or _key(app, routing_key)


def _must_arrive(app: Celery, engine: Engine, *, goes_on: bool) -> bool:
    if engine is Engine.TEMPORAL:
        return not goes_on
    return not app.conf.broker_transport_options.get("deadletter_queue")


def unroutable(exchange: Any, routing_key: str | None) -> UnsupportedOption:
    """Make the error of a message that no queue would get."""
    return UnsupportedOption(
        f"The exchange {_name_of(exchange)!r} leads to no queue with the routing key {routing_key or ''!r}, "
        "so nobody would get the message.",
        hint="Declare a queue that is bound so in `task_queues`, start a worker that has one, or name a queue.",
    )


def _queues_reached(
    app: Celery, exchange: Any, routing_key: str | None, declared: Iterable[Any]
) -> list[str] | None:
    """Name the queues that get a message; none: nobody does; None: that is not known."""
    name = _name_of(exchange)
    if not name:
        return [_key(app, routing_key)]
    found = queues_of(app, name, routing_key or "")
    found += [
        each.name for each in declared if _gets(each, name, routing_key or "") and each.name not in found
    ]
    return found or _declared_by_others(app, name, routing_key or "")


def _one_of(found: list[str] | None, chosen: Any) -> str | None:
    wanted = _name_of(chosen)
    return wanted if found and wanted in found else next(iter(found or ()), None)


def _key(app: Celery, routing_key: str | None) -> str:
    return str(routing_key or app.conf.task_default_queue)


def _name_of(entity: Any) -> str:
    return str(getattr(entity, "name", entity) or "")


def with_queue(app: Celery, publish_options: Mapping[str, Any], name: str) -> list[Any]:
    """Give what is declared before a message is sent; with the queue that its exchange leads to, or it were lost."""
    declared = list(publish_options.get("declare") or ())
    queue = dict(app.amqp.queues).get(name) if publish_options.get("exchange") else None
    return declared if queue is None or queue in declared else [*declared, queue]


def is_broadcast(app: Celery, queue: Any, exchange: Any) -> bool:
    """Whether many workers get a message: then it is not one job."""
    queue = app.amqp.queues.get(queue) if isinstance(queue, str) else queue
    name = _name_of(exchange)
    bound = [each for each in app.amqp.queues.values() if _has_exchange(each, name)] if name else []
    if any(isinstance(each, Broadcast) for each in (bound or [queue])):
        return True
    return len(bound) > 1 and any(getattr(each.exchange, "type", None) == "fanout" for each in bound)


def _gets(queue: Any, exchange: str, routing_key: str) -> bool:
    return isinstance(queue, Queue) and any(
        _leads(each, key, exchange, routing_key) for each, key in _bindings(queue)
    )


def _has_exchange(queue: Any, name: str) -> bool:
    return any(each is not None and each.name == name for each, _ in _bindings(queue))


def _bindings(queue: Any) -> Iterator[tuple[Any, str]]:
    yield queue.exchange, queue.routing_key
    bindings: Iterable[Any] = queue.bindings or ()
    for each in bindings:
        yield each.exchange, each.routing_key


def _leads(declared: Any, key: str | None, exchange: str, routing_key: str) -> bool:
    if declared is None or declared.name != exchange:
        return False
    match declared.type:
        case "fanout":
            return True
        case "topic":
            return re.match(topic_pattern(key or ""), f".{routing_key}") is not None
        case _:
            return (key or "") == routing_key


def _declared_by_others(app: Celery, exchange: str, routing_key: str) -> list[str] | None:
    if not app.shares_database_with_broker:
        return None
    try:
        return app.database.run(lambda own: queues_bound(own, exchange, routing_key))
    except DatabaseError as error:  # who sends next finds the same, and says so
        logger.debug("routing.not_known", extra={"exchange": exchange, "error": str(error)})
        return None

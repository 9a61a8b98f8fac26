"""To which queue a message goes: an exchange and a routing key lead to it, and only it has a name that people know.

What the app declares (`task_queues`) decides, as it does on the broker; then what others have declared there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kombu.common import Broadcast

from jobbridge.broker import queues_bound, topic_pattern
from jobbridge.errors import DatabaseError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)


def queues_of(app: Celery, exchange: str, routing_key: str) -> list[str]:
    """Give the app's queues that an exchange leads to, in the order of their declaration."""
    return [
        queue.name
        for queue in app.amqp.queues.values()
        if any(_leads(each, key, exchange, routing_key) for each, key in _bindings(queue))
    ]


def queue_of(app: Celery, exchange: Any, routing_key: str | None, *, chosen: Any = None) -> str:
    """Give the name of the queue that a message goes to; of several, the one that was chosen, or the first.

    Args:
        app: Whose queues.
        exchange: Or its name; empty: the routing key is the queue's name.
        routing_key: Empty: the default queue's name.
        chosen: The queue, or its name, that the sender named, if any.
    """
    key = str(routing_key or app.conf.task_default_queue)
    name = str(getattr(exchange, "name", exchange) or "")
    if not name:
        return key
    found = queues_of(app, name, routing_key or "") or _declared_by_others(app, name, routing_key or "")
    wanted = str(getattr(chosen, "name", chosen) or "")
    if wanted in found or not found:
        return wanted if wanted in found else key
    return found[0]


def with_queue(app: Celery, publish_options: Mapping[str, Any], name: str) -> list[Any]:
    """Give what is declared before a message is sent; with the queue that its exchange leads to, or it were lost."""
    declared = list(publish_options.get("declare") or ())
    queue = dict(app.amqp.queues).get(name) if publish_options.get("exchange") else None
    return declared if queue is None or queue in declared else [*declared, queue]


def is_broadcast(app: Celery, queue: Any, exchange: Any) -> bool:
    """Whether many workers get a message: then it is not one job."""
    queue = app.amqp.queues.get(queue) if isinstance(queue, str) else queue
    name = str(getattr(exchange, "name", exchange) or "")
    bound = [each for each in app.amqp.queues.values() if _has_exchange(each, name)] if name else []
    if any(isinstance(each, Broadcast) for each in (bound or [queue])):
        return True
    return len(bound) > 1 and any(getattr(each.exchange, "type", None) == "fanout" for each in bound)


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


def _declared_by_others(app: Celery, exchange: str, routing_key: str) -> list[str]:
    if not app.shares_database_with_broker:
        return []
    try:
        return app.database.run(lambda own: queues_bound(own, exchange, routing_key))
    except DatabaseError as error:  # who sends next finds the same, and says so
        logger.debug("routing.not_known", extra={"exchange": exchange, "error": str(error)})
        return []

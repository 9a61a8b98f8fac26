"""RabbitMQ: messages are got and acknowledged; what is not is in its queue again when the connection closes.

Workers that are stopped have given back what they held, ETA tasks included. AMQP does not list queues: the app's own
are looked for, and those that are named.

With quorum queues Celery has RabbitMQ keep what is not due (`delayed_delivery`): that is read where it waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amqp.exceptions import NotFound

from jobbridge.cutover.sources import delayed_delivery
from jobbridge.cutover.sources.base import PAGE, OldMessage


class AmqpSource:
    """Reads by AMQP's `basic_get`.

    Args:
        connection: Of kombu.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self.notes: list[str] = ["RabbitMQ does not list its queues: name those of other apps with --queues."]

    def queues(self, known: Sequence[str]) -> list[str]:
        return [name for name in known if self._declared(name) is not None]

    def consumers(self, queues: Sequence[str]) -> int:
        declared = (self._declared(queue) for queue in queues)
        return sum(each.consumer_count for each in declared if each is not None)

    def pages(self, queue: str) -> Iterator[list[OldMessage]]:
        if self._declared(queue) is None:
            return
        while got := self._got(queue):
            yield [_message(each, queue) for each in got]

    def delayed(self, routes: Mapping[str, Sequence[str]], *, are_all: bool) -> Iterator[list[OldMessage]]:
        # From the longest delay to the shortest: what moves on meanwhile is found further down, or in its queue.
        for name in reversed(delayed_delivery.QUEUES):
            if self._declared(name) is None:
                continue
            while got := self._got(name):
                yield [
                    found for each in got if (found := self._delayed(each, name, routes, are_all)) is not None
                ]

    def _delayed(
        self, got: Any, name: str, routes: Mapping[str, Sequence[str]], are_all: bool
    ) -> OldMessage | None:
        key = str(got.delivery_info["routing_key"])
        queue = delayed_delivery.queue_of(key, routes)
        if queue is not None:
            return _message(got, queue)
        if not are_all:
            return None
        own = delayed_delivery.without_delay(key)
        trouble = f"RabbitMQ's delayed delivery has it for the routing key {own!r}, which leads to none of these queues"
        return _message(got, name, trouble=trouble)

    def _got(self, queue: str) -> list[Any]:
        """Get a page; what was got and not removed does not come again."""
        page: list[Any] = []
        while len(page) < PAGE and (got := self._channel.basic_get(queue, no_ack=False)) is not None:
            page.append(got)
        return page

    def held(self, queues: Sequence[str] | None) -> Iterator[list[OldMessage]]:
        return iter(())

    def remove(self, messages: Sequence[OldMessage]) -> None:
        for message in messages:
            self._channel.basic_ack(message.receipt)

    def close(self) -> None:
        # With its channel, what was got and not acknowledged goes back.
        self._channel.close()
        self._connection.release()

    def _declared(self, queue: str) -> Any:
        # A channel ends with such a question about a queue that is not there.
        channel = self._connection.channel()
        try:
            declared = channel.queue_declare(queue, passive=True)
        except NotFound:
            return None
        channel.close()
        return declared


def _message(got: Any, queue: str, *, trouble: str | None = None) -> OldMessage:
    body = got.body
    return OldMessage(
        queue=queue,
        receipt=got.delivery_tag,
        headers=dict(got.headers or {}),
        properties={name: value for name, value in got.properties.items() if name != "application_headers"},
        body=body.encode() if isinstance(body, str) else bytes(body),
        content_type=got.properties.get("content_type"),
        content_encoding=got.properties.get("content_encoding"),
        trouble=trouble,
    )

"""RabbitMQ: messages are got and acknowledged; what is not is in its queue again when the connection closes.

Workers that are stopped have given back what they held, ETA tasks included. AMQP does not list queues: the app's own
are looked for, and those that are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from amqp.exceptions import NotFound

from jobbridge.cutover.sources.base import PAGE, OldMessage

#: Where Celery's delayed delivery for quorum queues keeps what is not due (kombu, native_delayed_delivery.py).
_DELAYED = "celery_delayed_{}"
_LEVELS = 28


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
        found = [name for name in known if self._declared(name) is not None]
        delayed = sum(
            declared.message_count
            for level in range(_LEVELS)
            if (declared := self._declared(_DELAYED.format(level))) is not None
        )
        if delayed:
            self.notes.append(
                f"{delayed} message(s) are in RabbitMQ's delayed delivery, and stay there until they are due."
            )
        return found

    def consumers(self, queues: Sequence[str]) -> int:
        declared = (self._declared(queue) for queue in queues)
        return sum(each.consumer_count for each in declared if each is not None)

    def pages(self, queue: str) -> Iterator[list[OldMessage]]:
        if self._declared(queue) is None:
            return
        while page := self._page(queue):
            yield page

    def _page(self, queue: str) -> list[OldMessage]:
        page: list[OldMessage] = []
        while len(page) < PAGE and (got := self._channel.basic_get(queue, no_ack=False)) is not None:
            body = got.body
            page.append(
                OldMessage(
                    queue=queue,
                    receipt=got.delivery_tag,
                    headers=dict(got.headers or {}),
                    properties={
                        name: value for name, value in got.properties.items() if name != "application_headers"
                    },
                    body=body.encode() if isinstance(body, str) else bytes(body),
                    content_type=got.properties.get("content_type"),
                    content_encoding=got.properties.get("content_encoding"),
                )
            )
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

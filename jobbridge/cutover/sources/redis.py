r"""Redis, as kombu 5.7 keeps messages there (`transport/redis.py`).

A queue is a list for each priority: `queue`, `queue\x06\x163`, `…6`, `…9`, filled from the left and emptied from the
right. What a consumer has is in the hash `unacked` (tag → message, exchange, routing key) and the sorted set
`unacked_index`: so are the ETA tasks of workers, which hold them until they are due.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kombu.utils.json import loads
from redis import Redis

from jobbridge.cutover.sources.base import PAGE, OldMessage, is_for_jobs, read_payload

_HELD = object()


class RedisSource:
    """Reads by kombu's channel and its client.

    Args:
        connection: Of kombu.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel = connection.channel()
        # The channel's own puts a global prefix before the keys of those commands only that kombu uses.
        self._client = Redis(connection_pool=self._channel.client.connection_pool)
        self._left = 0
        self.notes: list[str] = []

    def queues(self, known: Sequence[str]) -> list[str]:
        found = {name for name in known if self._has(name)}
        for key in self._client.scan_iter(match=f"{self._prefix}_kombu.binding.*", count=1000, _type="set"):
            for member in self._client.smembers(key):
                queue = _text(member).rsplit(self._channel.sep, 1)[-1]
                if is_for_jobs(queue):
                    found.add(queue)
        return sorted(found)

    def consumers(self, queues: Sequence[str]) -> int:
        # Each worker subscribes to remote control; `--without-…` options leave that on.
        channel = f"{self._prefix}{self._channel.keyprefix_fanout}celery.pidbox"
        subscribed = {_text(name): count for name, count in self._client.pubsub_numsub(channel)}
        return int(subscribed.get(channel, 0))

    def pages(self, queue: str) -> Iterator[list[OldMessage]]:
        for step in self._channel.priority_steps:
            key = self._list(queue, step)
            self._left = 0
            while raw := self._client.lrange(key, -(self._left + PAGE), -(self._left + 1)):
                if step and not self.notes:
                    self.notes.append(
                        "Redis runs priority 0 first, and here 9 runs first: the numbers are as they were sent."
                    )
                page = [read_payload(_text(each), queue=queue, receipt=(key, each)) for each in reversed(raw)]
                self._left += len(page)
                yield page

    def delayed(self, routes: Mapping[str, Sequence[str]], *, are_all: bool) -> Iterator[list[OldMessage]]:
        return iter(())

    def held(self, queues: Sequence[str] | None) -> Iterator[list[OldMessage]]:
        page: list[OldMessage] = []
        for tag, raw in list(self._client.hscan_iter(self._key(self._channel.unacked_key), count=1000)):
            message = self._held(_text(tag), raw)
            if queues is not None and message.queue not in queues:
                continue
            page.append(message)
            if len(page) >= PAGE:
                yield page
                page = []
        if page:
            yield page

    def _held(self, tag: str, raw: Any) -> OldMessage:
        receipt = (_HELD, tag)
        try:
            payload, exchange, routing_key = loads(_text(raw))
            queue = self._queue_of(exchange, routing_key)
        except (ValueError, TypeError) as error:
            return OldMessage(
                queue="", receipt=receipt, is_held=True, trouble=f"it is no message of kombu's: {error!r}"
            )
        return read_payload(payload, queue=queue, receipt=receipt, is_held=True)

    def _queue_of(self, exchange: str, routing_key: str) -> str:
        if exchange:
            for member in self._client.smembers(self._key(self._channel.keyprefix_queue % (exchange,))):
                key, _, queue = _text(member).split(self._channel.sep)
                if key == routing_key:
                    return queue
        return routing_key

    def remove(self, messages: Sequence[OldMessage]) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            for message in messages:
                where, what = message.receipt
                if where is _HELD:
                    pipe.zrem(self._key(self._channel.unacked_index_key), what)
                    pipe.hdel(self._key(self._channel.unacked_key), what)
                else:
                    pipe.lrem(where, -1, what)  # from the right, where it was found
                    self._left -= 1
            pipe.execute()

    def close(self) -> None:
        self._connection.release()

    @property
    def _prefix(self) -> str:
        return str(self._channel.global_keyprefix or "")

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _list(self, queue: str, step: int) -> str:
        return self._key(self._channel._q_for_pri(queue, step))

    def _has(self, queue: str) -> bool:
        return any(self._client.llen(self._list(queue, step)) for step in self._channel.priority_steps)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

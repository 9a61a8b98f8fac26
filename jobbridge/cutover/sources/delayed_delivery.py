"""Where Celery has RabbitMQ keep what is not due, if it has quorum queues; kombu 5.7, `native_delayed_delivery.py`.

There are 28 queues, one for each bit of a delay in seconds: `celery_delayed_27` to `…_0`. A message waits in that of
each bit that is set, one after the other. Its routing key is the bits, and then the key by which it would have gone at
once; from the last queue an exchange of topics brings it to the queues that are bound by `#.` and their key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

_BITS: Final = 28
#: From the shortest delay to the longest.
QUEUES: Final = tuple(f"celery_delayed_{level}" for level in range(_BITS))
_DELAY: Final = re.compile(rf"(?:[01]\.){{{_BITS}}}")


def without_delay(key: str) -> str:
    """Give the routing key that a message had before it was delayed."""
    return _DELAY.sub("", key, count=1)


def queue_of(key: str, routes: Mapping[str, Sequence[str]]) -> str | None:
    """Give the queue to which a message will go; None: none of these.

    Args:
        key: The message's routing key.
        routes: The routing keys by which each queue is bound.
    """
    own = without_delay(key)
    for queue, bound in routes.items():
        if own in bound:
            return queue
    words = key.split(".")
    for queue, bound in routes.items():
        if any(
            _matches(("#." + each).split(".") if each[:1] != "#" else each.split("."), words)
            for each in bound
        ):
            return queue
    return None


def _matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a key is of a topic: `*` is a word, `#` any number of words."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_matches(pattern[1:], words[start:]) for start in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _matches(pattern[1:], words[1:])

"""Pure parts of AMQP routing: topic patterns, queue arguments, notification channels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_WORDS = {"*": r"\.[^.]+", "#": r"(\.[^.]*)*"}


def topic_pattern(binding_key: str) -> str:
    """Translate the binding key of a topic exchange to a regular expression, for a dot and the routing key.

    `*` is exactly one word, `#` is zero or more, as AMQP 0-9-1 has it (section 3.1.3.3); kombu's virtual exchanges
    read `#` as one or more. With a dot in front of every word, the first one included, none is special.
    """
    words = (_WORDS.get(word, r"\." + re.escape(word)) for word in binding_key.split("."))
    return f"^{''.join(words)}$"


def notification_channel(queue: str) -> str:
    """Name the channel that wakes consumers of the queue; a Postgres identifier is at most 63 bytes.

    The statements that publish compute the same with `CHANNEL_OF_QUEUE`.
    """
    return "jb_" + hashlib.sha256(queue.encode()).hexdigest()[:40]


#: The same in SQL. Not md5(), which a server in FIPS mode refuses.
CHANNEL_OF_QUEUE = "'jb_' || left(encode(sha256(convert_to(queue, 'UTF8')), 'hex'), 40)"


@dataclass(frozen=True, kw_only=True)
class QueueArguments:
    """What a queue's arguments ask for."""

    expires: timedelta | None
    message_ttl: timedelta | None

    @classmethod
    def of(cls, arguments: Mapping[str, Any] | None) -> QueueArguments:
        given = arguments or {}
        return cls(
            expires=_milliseconds(given.get("x-expires")),
            message_ttl=_milliseconds(given.get("x-message-ttl")),
        )


def _milliseconds(value: Any) -> timedelta | None:
    return None if value is None else timedelta(milliseconds=int(value))

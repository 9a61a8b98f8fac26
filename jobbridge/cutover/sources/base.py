"""What all sources share: a message as it was found, and how kombu's own form of it is read."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kombu.utils.json import loads

#: Queues of Celery's remote control and events: what waits there is for workers that are gone.
_CONTROL = (".pidbox", ".reply.celery.pidbox")
_EVENTS = "celeryev"
#: Messages that are read, written and removed together.
PAGE = 100


@dataclass(frozen=True, kw_only=True)
class OldMessage:
    """A message of the old broker.

    Attributes:
        receipt: How the source finds it again, to remove it.
        body: Bytes as they were sent, compressed if the headers say so.
        is_held: A consumer had it, and did not acknowledge it.
        trouble: Why it cannot be read; then nothing else is known of it.
    """

    queue: str
    receipt: Any
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""
    content_type: str | None = None
    content_encoding: str | None = None
    is_held: bool = False
    trouble: str | None = None


class Source(Protocol):
    """An old broker."""

    #: What its user should know of it.
    notes: list[str]

    def queues(self, known: Sequence[str]) -> list[str]:
        """Name the queues that there are; `known`: those that the app names."""
        ...

    def consumers(self, queues: Sequence[str]) -> int:
        """Count who consumes there now, as far as the broker tells."""
        ...

    def pages(self, queue: str) -> Iterator[list[OldMessage]]:
        """Give what waits in a queue. Between two pages what the first had may be removed, and what came is given."""
        ...

    def delayed(self, routes: Mapping[str, Sequence[str]], *, are_all: bool) -> Iterator[list[OldMessage]]:
        """Give what is not due and waits outside of its queue. Where the broker keeps that apart.

        Args:
            routes: The queues that are asked for, and the routing keys that lead to each.
            are_all: What leads to none of them is given, too, as trouble.
        """
        ...

    def held(self, queues: Sequence[str] | None) -> Iterator[list[OldMessage]]:
        """Give what consumers of these queues had, that are gone; None: of all. Where the broker keeps that apart."""
        ...

    def remove(self, messages: Sequence[OldMessage]) -> None:
        """Remove messages of the last page."""
        ...

    def close(self) -> None:
        """Let go of it; what was not removed is there for others."""
        ...


def is_for_jobs(queue: str) -> bool:
    """Whether a queue is none of remote control and events."""
    return bool(queue) and not queue.endswith(_CONTROL) and not queue.startswith(_EVENTS)


def read_payload(raw: Any, *, queue: str, receipt: Any, is_held: bool = False) -> OldMessage:
    """Read a message in the form that kombu's virtual transports store."""
    try:
        payload = loads(raw) if isinstance(raw, str | bytes) else raw
        properties = dict(payload.get("properties") or {})
        body = payload.get("body") or ""
        if properties.get("body_encoding") == "base64":
            content = base64.b64decode(body)
        else:
            content = body.encode() if isinstance(body, str) else bytes(body)
        return OldMessage(
            queue=queue,
            receipt=receipt,
            headers=dict(payload.get("headers") or {}),
            properties=properties,
            body=content,
            content_type=payload.get("content-type"),
            content_encoding=payload.get("content-encoding"),
            is_held=is_held,
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        return OldMessage(
            queue=queue, receipt=receipt, is_held=is_held, trouble=f"it is no message of kombu's: {error!r}"
        )

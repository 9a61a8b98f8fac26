"""A Celery message as JSON: what Temporal carries and what a row keeps until it is delivered.

The arguments of a JSON message stay readable. Any other content (pickle, yaml, msgpack, signed) travels as base64.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

Json = Any  # what json.loads returns

#: The header that JobBridge adds to every message of a tracked job: {"tenant", "delivery", "engine"}.
HEADER = "jobbridge"
#: The header of the W3C that names a message's trace; by the same name the metadata of a row has it.
TRACE = "traceparent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """One message.

    Attributes:
        id: The Celery task id, which is also the workflow id.
        task: The task's name.
        delivery: Names this hand-over; see jobbridge.core.events.
        queue: The Celery queue it was sent to.
        eta: When it may start, ISO 8601; None: at once.
        waits: Its job waits to be woken; `eta` is then the latest that it goes on.
        expires: When it is of no use any more, ISO 8601.
        priority: 0 to 9, higher first.
        timelimit: Hard and soft limit in seconds, as in Celery's header.
        arguments: `[args, kwargs, embed]` when the content is JSON; embed holds callbacks, errbacks, chain, chord.
        body: The encoded body in base64 when it is not.
        max_crashes: How many workers it may take with it; None: as many as the workflow allows.
        headers: Celery's headers as sent.
        properties: AMQP properties as sent (correlation_id, reply_to, priority …).
    """

    id: str
    task: str
    tenant: str
    delivery: str
    queue: str
    headers: dict[str, Json]
    eta: str | None = None
    waits: bool | None = None
    expires: str | None = None
    priority: int = 0
    timelimit: tuple[float | None, float | None] = (None, None)
    properties: dict[str, Json] = field(default_factory=dict)
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    arguments: list[Json] | None = None
    body: str | None = None
    max_crashes: int | None = None

    def to_json(self) -> dict[str, Json]:
        """Give it as a JSON object; empty fields are left out."""
        fields = (
            (name, getattr(self, name)) for name in self.__dataclass_fields__
        )  # `asdict` copies all that is in it
        return {name: value for name, value in fields if value is not None}

    @classmethod
    def from_json(cls, document: dict[str, Json]) -> Envelope:
        """Read it back. Fields that a later release added are ignored.

        Raises:
            TypeError: A required field is missing.
        """
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        if "timelimit" in known:
            known["timelimit"] = tuple(known["timelimit"])
        return cls(**known)

    def without_arguments(self) -> Envelope:
        """Give it without args and kwargs (they travel as the workflow's `data`), but with callbacks and chain."""
        if self.arguments is None:
            return self
        return replace(self, arguments=[None, None, self.arguments[2]])

    def with_arguments(self, args: list[Json], kwargs: dict[str, Json]) -> Envelope:
        """Put back what `without_arguments` took out."""
        embed = self.arguments[2] if self.arguments else {}
        return replace(self, arguments=[args, kwargs, embed])

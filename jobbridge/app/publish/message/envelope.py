"""A task message on its way to a broker, as the JSON that Temporal carries and the row keeps."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kombu import serialization
from kombu.utils import json as kombu_json
from kombu.utils.encoding import str_to_bytes

from jobbridge.app.publish.message.size import check_size
from jobbridge.core.envelope import Envelope
from jobbridge.core.keys import JobKey
from jobbridge.errors import ConfigurationError
from jobbridge.settings import DEFAULT_MAX_CRASHES

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: What kombu's `Producer.publish` takes beside the message's properties (kombu 5.7, messaging.py).
_NO_PROPERTIES = frozenset(
    {
        "exchange", "routing_key", "delivery_mode", "mandatory", "immediate", "content_type", "content_encoding",
        "serializer", "headers", "compression", "retry", "retry_policy", "declare", "timeout", "confirm_timeout",
    }
)  # fmt: skip


def make_envelope(
    app: Celery,
    task: Any,
    name: str,
    *,
    key: JobKey,
    delivery: uuid.UUID,
    queue: str,
    body: Any,
    publish_options: Mapping[str, Any],
) -> Envelope:
    """Give the message as an envelope.

    Args:
        app: Whose message.
        task: The task if it is known here; its time limits count where the message has none.
        name: The task's name.
        key: The job.
        delivery: Names this hand-over.
        queue: The Celery queue.
        body: Arguments and callbacks, not yet serialized.
        publish_options: What the sender passes to the producer.

    Raises:
        ConfigurationError: A header is no JSON.
        TooLarge: It is larger than the setting allows.
    """
    headers = publish_options["headers"]
    serializer = publish_options.get("serializer") or app.conf.task_serializer
    content_type, content_encoding, encoded = serialization.dumps(body, serializer=serializer)
    is_json = content_type == "application/json"
    text = str_to_bytes(encoded)
    sent_headers = _as_json(headers)
    check_size(app, name, len(text) + len(json.dumps(sent_headers)))
    return Envelope(
        id=str(headers["id"]),
        task=name,
        tenant=key.tenant,
        delivery=str(delivery),
        queue=queue,
        eta=headers.get("eta"),
        expires=headers.get("expires"),
        priority=int(publish_options.get("priority") or 0),
        timelimit=_time_limits(headers, task),
        headers=sent_headers,
        properties=_as_json(_properties(publish_options)),
        content_type=content_type,
        content_encoding=content_encoding,
        arguments=json.loads(text) if is_json else None,
        body=None if is_json else base64.b64encode(text).decode("ascii"),
        max_crashes=None if app.settings.max_crashes == DEFAULT_MAX_CRASHES else app.settings.max_crashes,
    )


def _properties(publish_options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the properties as kombu sends them, with where the message was sent."""
    told = {name: value for name, value in publish_options.items() if name not in _NO_PROPERTIES and value}
    if "expiration" in told:
        told["expiration"] = str(int(told["expiration"] * 1000))  # milliseconds, as in AMQP
    exchange = publish_options.get("exchange") or ""
    if exchange:
        routing_key = publish_options.get("routing_key") or ""
        told["delivery_info"] = {"exchange": getattr(exchange, "name", exchange), "routing_key": routing_key}
    return told


def _time_limits(headers: Mapping[str, Any], task: Any) -> tuple[float | None, float | None]:
    hard, soft = headers.get("timelimit") or (None, None)
    return hard or getattr(task, "time_limit", None), soft or getattr(task, "soft_time_limit", None)


def _as_json(document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain = json.loads(kombu_json.dumps(document))
    except TypeError as error:
        raise ConfigurationError(
            f"A header of the message cannot be written as JSON: {error}.",
            hint="Send headers of plain values.",
        ) from None
    return dict(plain)

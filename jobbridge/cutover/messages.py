"""A message of the broker as one of Temporal's, and back: with all that it says, addressed anew."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from kombu import compression
from kombu.utils import json as kombu_json

from jobbridge.app.execute.carried import BEGUN
from jobbridge.app.publish.message import encryption
from jobbridge.app.publish.message.reference import MissingArguments, fetch_body
from jobbridge.broker import StoredMessage
from jobbridge.codec.rows import place_of
from jobbridge.core.envelope import HEADER, Envelope
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.light import LIGHT
from jobbridge.errors import EncryptionError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.cutover.sources.base import OldMessage
    from jobbridge.store.moves.jobs import MovableJob

Message = TypeVar("Message", bound="StoredMessage | OldMessage")

#: What the broker's transport writes into properties, or what a message has only there.
_TRANSPORTS = frozenset({"body_encoding", "delivery_tag", "delivery_mode", "delivery_info", "priority"})


class Unreadable(ValueError):
    """A message is not what a task's message is."""


def delivery_in(headers: Mapping[str, Any]) -> str | None:
    """Give by which delivery a message goes; None: it is not one of ours."""
    told = headers.get(HEADER)
    return told.get("delivery") if isinstance(told, dict) else None


def to_envelope(app: Celery, job: MovableJob, message: StoredMessage, delivery: UUID) -> Envelope:
    """Give the broker's message of a job as Temporal carries it.

    Raises:
        Unreadable: It is none of a task.
    """
    message = opened(app, message)
    headers, body = _unpacked(dict(message.headers), message.body)
    headers.pop(BEGUN, None)  # a retry that an earlier release sent
    if "task" not in headers or "id" not in headers:
        raise Unreadable("its headers name no task")
    told = {**headers[HEADER], "delivery": str(delivery), "engine": Engine.TEMPORAL.value}
    task = app.tasks.get(job.type)
    if getattr(task, "temporal_light", None) or (
        getattr(task, "temporal_light", None) is None and app.settings.temporal_light
    ):
        told[LIGHT] = True
    headers[HEADER] = told
    arguments = _arguments(message.content_type, body)
    hard, soft = headers.get("timelimit") or (None, None)
    return Envelope(
        id=job.task_id,
        task=job.type,
        tenant=job.key.tenant,
        delivery=str(delivery),
        queue=told.get("queue") or message.queue,
        eta=headers.get("eta"),
        expires=headers.get("expires"),
        priority=message.priority,
        timelimit=(hard or getattr(task, "time_limit", None), soft or getattr(task, "soft_time_limit", None)),
        headers=_plain(headers),
        properties=_plain(_properties(message.properties)),
        content_type=message.content_type or "application/json",
        content_encoding=message.content_encoding or "utf-8",
        arguments=arguments,
        body=None if arguments is not None else base64.b64encode(body).decode("ascii"),
    )


def to_message(app: Celery, job: MovableJob, delivery: UUID) -> StoredMessage:
    """Give Temporal's message of a job, which its row has, as the broker has messages.

    Raises:
        Unreadable: The row has none that can be read.
    """
    try:
        place = place_of(job.key.job_id, "message")
        opened = app.database.codec.open_json(job.message, place, is_exact=True)
        envelope = Envelope.from_json(opened)
    except (TypeError, ValueError, KeyError, AttributeError, EncryptionError) as error:
        raise Unreadable(f"its message cannot be read: {error!r}") from None
    told = {
        **(envelope.headers.get(HEADER) or {}),
        "tenant": job.key.tenant,
        "delivery": str(delivery),
        "engine": Engine.CELERY.value,
    }
    if envelope.arguments is not None:
        body = json.dumps(envelope.arguments).encode()
    else:
        body = base64.b64decode(envelope.body or "")
    message = StoredMessage(
        queue=envelope.queue,
        headers={**envelope.headers, HEADER: told},
        properties=envelope.properties,
        body=body,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        correlation_id=envelope.id,
        priority=envelope.priority,
    )
    return sealed(app, message)


def sealed(app: Celery, message: StoredMessage) -> StoredMessage:
    """Give a message as it is stored here: sealed, if there are keys and it is not yet."""
    codec = app.database.codec
    if not codec or encryption.HEADER in message.headers:
        return message
    body, headers = encryption.sealed_body(
        codec, message.body, message.headers, message.content_type, message.content_encoding
    )
    return replace(
        message,
        body=body,
        headers=headers,
        content_type=encryption.CONTENT_TYPE,
        content_encoding=encryption.CONTENT_ENCODING,
    )


def opened(app: Celery, message: Message) -> Message:
    """Give a message with the body that was sent, if JobBridge sealed it, or left it in the job's row.

    Raises:
        Unreadable: It cannot be opened, or nobody needs it any more.
    """
    names = ("headers", "body", "content_type", "content_encoding")
    told = SimpleNamespace(**{name: getattr(message, name) for name in names})
    try:
        if not fetch_body(app, told):
            raise Unreadable("its job has ended, or goes on by another message")
        encryption.open_message(app, told)
    except (EncryptionError, MissingArguments) as error:
        raise Unreadable(str(error)) from error
    return replace(message, **{name: getattr(told, name) for name in names})


def readdressed(message: StoredMessage, *, tenant: TenantId, delivery: UUID) -> StoredMessage:
    """Give a message of ours by a new delivery."""
    told = {**(message.headers.get(HEADER) or {}), "tenant": tenant, "delivery": str(delivery)}
    told.pop("untracked", None)  # it has a row now
    headers = {**message.headers, HEADER: {**told, "engine": Engine.CELERY.value}}
    return replace(message, headers=headers)


def _unpacked(headers: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Take the compression off: Temporal's messages have none."""
    how = headers.pop("compression", None)
    if not how:
        return headers, body
    try:
        return headers, compression.decompress(body, how)
    except Exception as error:  # of whichever library
        raise Unreadable(f"its body cannot be unpacked ({how}): {error!r}") from None


def _arguments(content_type: str | None, body: bytes) -> list[Any] | None:
    if content_type != "application/json":
        return None
    try:
        arguments = json.loads(body)
    except ValueError as error:
        raise Unreadable(f"its body is no JSON: {error}") from None
    if not isinstance(arguments, list) or len(arguments) != 3:
        raise Unreadable("its body is none of a task")
    return arguments


def _properties(properties: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in properties.items() if name not in _TRANSPORTS and value}
    info = properties.get("delivery_info") or {}
    if info.get("exchange"):
        kept["delivery_info"] = {name: info.get(name) for name in ("exchange", "routing_key")}
    return kept


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(kombu_json.dumps(document))
    return plain

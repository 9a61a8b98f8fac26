"""A message of an old broker as a job of ours: what its row says, and the message that the broker is given.

Celery's task protocol 2 stays as it is, its body untouched: pickle stays pickle, what is compressed stays so. Protocol
1, whose body says all, is written as 2.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu import compression, serialization
from kombu.exceptions import ContentDisallowed
from kombu.serialization import prepare_accept_content, registry  # type: ignore[attr-defined]  # not in the stubs

from jobbridge.app.publish.message.fields import instant, optional_id, readable_arguments
from jobbridge.broker import StoredMessage
from jobbridge.core.chords import place_of
from jobbridge.core.envelope import HEADER
from jobbridge.core.events import Continuation, Submitted
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.cutover.messages import Unreadable, delivery_in, opened, readdressed

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.cutover.sources.base import OldMessage

#: Protocol 1 has these in its body, protocol 2 in its headers (celery 5.7, worker/strategy.py).
_IN_BODY = (
    "lang",
    "task",
    "id",
    "root_id",
    "parent_id",
    "group",
    "meth",
    "shadow",
    "eta",
    "expires",
    "origin",
)


@dataclass(frozen=True, kw_only=True)
class OldJob:
    """What a message asks for.

    Attributes:
        arguments: Args, kwargs and what is embedded, decoded.
        body: Of protocol 2.
        delivery: By which it was sent, if it was sent by JobBridge.
    """

    task_id: str
    name: str
    retries: int
    headers: Mapping[str, Any]
    arguments: Any
    body: bytes
    content_type: str | None
    content_encoding: str | None
    delivery: str | None
    message: OldMessage

    @property
    def key(self) -> JobKey:
        told = self.headers.get(HEADER) or {}
        return JobKey(
            tenant=TenantId(str(told.get("tenant") or SYSTEM_TENANT)), job_id=job_id_for(self.task_id)
        )

    @property
    def priority(self) -> int:
        try:
            return min(max(int(self.message.properties.get("priority") or 0), 0), 9)
        except (TypeError, ValueError):
            return 0


def read(app: Celery, message: OldMessage) -> OldJob:
    """Read a message.

    Raises:
        Unreadable: It is none of a task, or of a kind that the app does not accept.
    """
    if message.trouble is not None:
        raise Unreadable(message.trouble)
    message = opened(app, message)
    headers = {
        name: value for name, value in message.headers.items() if not name.startswith("x-")
    }  # RabbitMQ's own
    decoded = _decoded(app, message, headers)
    if "task" in headers and "id" in headers:
        if not isinstance(decoded, list | tuple) or len(decoded) != 3:
            raise Unreadable("its body is none of a task")
        arguments, body = decoded, message.body
        content_type, content_encoding = message.content_type, message.content_encoding
    elif isinstance(decoded, dict) and "task" in decoded and "id" in decoded:
        headers, arguments = _as_protocol_2(headers, decoded)
        content_type, content_encoding, body = _encoded(message.content_type, arguments)
    else:
        raise Unreadable("it names no task")
    headers.pop("redelivered", None)  # kombu's, of a message that went back
    try:
        for name in ("eta", "expires"):
            instant(headers.get(name) or None)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"its time cannot be read: {error}") from None
    return OldJob(
        task_id=str(headers["id"]),
        name=str(headers["task"]),
        retries=int(headers.get("retries") or 0),
        headers=headers,
        arguments=arguments,
        body=body,
        content_type=content_type,
        content_encoding=content_encoding,
        delivery=delivery_in(headers),
        message=message,
    )


def submitted(app: Celery, job: OldJob, delivery: uuid.UUID) -> Submitted:
    """Give what makes its row."""
    headers, task = job.headers, app.tasks.get(job.name)
    max_retries, root_id, parent_id = (
        getattr(task, "max_retries", None),
        headers.get("root_id"),
        optional_id(headers.get("parent_id")),
    )
    key = job.key
    return Submitted(
        key=key,
        task_id=job.task_id,
        type=job.name,
        engine=Engine.CELERY,
        delivery=delivery,
        queue=job.message.queue,
        status=JobStatus.RETRYING if job.retries else JobStatus.QUEUED,
        continues=Continuation(attempt=job.retries, is_retry=True) if job.retries else None,
        priority=job.priority,
        run_at=instant(headers.get("eta") or None),
        expires_at=instant(headers.get("expires") or None),
        max_attempts=None if max_retries is None else max_retries + 1,
        metadata=readable_arguments(task, job.arguments, headers),
        external_id=job.task_id,
        root_id=key.job_id if root_id == job.task_id else optional_id(root_id),
        parent_id=parent_id if parent_id != key.job_id else None,
        group_id=headers.get("group"),
        **place_of(job.arguments, headers),
    )


def stored(job: OldJob, delivery: uuid.UUID, key: JobKey) -> StoredMessage:
    """Give its message for our broker: to the queue that it was in."""
    properties = {
        name: value
        for name, value in job.message.properties.items()
        if name in ("correlation_id", "reply_to", "expiration", "message_id", "type", "app_id") and value
    }
    message = StoredMessage(
        queue=job.message.queue,
        headers=job.headers,
        properties={**properties, "correlation_id": job.task_id},
        body=job.body,
        content_type=job.content_type,
        content_encoding=job.content_encoding,
        correlation_id=job.task_id,
        priority=job.priority,
    )
    return readdressed(message, tenant=key.tenant, delivery=delivery)


def _decoded(app: Celery, message: OldMessage, headers: Mapping[str, Any]) -> Any:
    body = message.body
    accept = prepare_accept_content(app.conf.accept_content)
    try:
        if how := headers.get("compression"):
            body = compression.decompress(body, how)
        kind, encoding = message.content_type or "application/json", message.content_encoding or "utf-8"
        return serialization.loads(body, kind, encoding, accept=accept)
    except ContentDisallowed:
        raise Unreadable(f"its content type {message.content_type!r} is not in accept_content") from None
    except Exception as error:  # of whichever library
        raise Unreadable(f"its body cannot be read: {error!r}") from None


def _as_protocol_2(
    headers: Mapping[str, Any], body: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[Any, Any, dict[str, Any]]]:
    told = {name: body[name] for name in _IN_BODY if body.get(name) is not None}
    told["retries"] = body.get("retries") or 0
    told["timelimit"] = list(body.get("timelimit") or (None, None))
    told["root_id"] = told.get("root_id") or body["id"]
    told["group"] = told.get("group") or body.get("taskset")
    embedded = {
        "callbacks": body.get("callbacks"),
        "errbacks": body.get("errbacks"),
        "chain": None,
        "chord": body.get("chord"),
    }
    arguments = (list(body.get("args") or ()), dict(body.get("kwargs") or {}), embedded)
    return {**headers, **told}, arguments


def _encoded(content_type: str | None, arguments: Any) -> tuple[str, str, bytes]:
    name = registry.type_to_name.get(content_type, "json")
    kind, encoding, body = serialization.dumps(arguments, serializer=name)
    return kind, encoding, body.encode() if isinstance(body, str) else body

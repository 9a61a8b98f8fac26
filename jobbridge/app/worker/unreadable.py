"""What no task request can be made of becomes a dead letter, with its reason; the worker goes on.

Celery's consumer answers some such messages by itself, and lets the errors of others out of its loop: the worker ends,
finds the message again at its next start, and ends again (celery 5.7, worker/consumer/consumer.py,
`create_task_handler`; worker/request.py). So what a request is made of is looked at before, and what fails all the
same, before anybody has the message, is the message's fault.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery import bootsteps, signals
from kombu.utils.encoding import safe_repr

from jobbridge.app.publish.message.encryption import open_message
from jobbridge.app.publish.message.reference import fetch_body
from jobbridge.core.envelope import HEADER
from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseError, DatabaseUnavailable

logger = logging.getLogger(__name__)

_ConsumerStep: Any = bootsteps.StartStopStep  # untyped

_MOST_RETRIES = 2**31 - 1
_LONGEST_LIMIT = 10 * 365 * 86_400.0  # seconds
#: A message whose arguments Postgres has, and cannot give now, stays with the worker. Seconds between two tries.
_AGAIN_AFTER = 1.0


class BuryUnreadable(_ConsumerStep):  # type: ignore[misc]  # untyped base
    """Put the look at a message in front of Celery's handler of messages."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        create = consumer.create_task_handler
        consumer.create_task_handler = lambda: _guarded(consumer, create())
        # Asked for by Celery's handler when it is made; without ours what cannot be decoded is acknowledged, and gone.
        consumer.on_decode_error = lambda message, error: _bury(consumer, message, error)
        consumer.on_unknown_message = lambda body, message: _bury(consumer, message, "it is no task's")
        consumer.on_invalid_task = lambda body, message, error: _bury(consumer, message, error)

    def info(self, consumer: Any) -> dict[str, Any]:
        """Give for `inspect stats` the ids of the keys that open messages here: has a rotation come everywhere?"""
        key_ids = consumer.app.database.codec.key_ids
        return {"encryption": {"writes": next(iter(key_ids), None), "reads": list(key_ids)}}


def _guarded(consumer: Any, handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
    passing = (*consumer.connection_errors, *consumer.channel_errors, DatabaseError, MemoryError)

    def come_again(message: Any, session: int) -> None:
        if consumer.restart_count == session:  # else the broker delivers it again
            on_task_received(message)

    def on_task_received(message: Any) -> Any:
        try:
            try:
                is_wanted = fetch_body(consumer.app, message)
            except DatabaseUnavailable as error:
                logger.warning("worker.arguments_awaited: %s", error)
                return consumer.timer.call_after(_AGAIN_AFTER, come_again, (message, consumer.restart_count))
            if not is_wanted:
                return message.ack_log_error(logger, consumer.connection_errors)
            open_message(consumer.app, message)
            why = why_unreadable(message)
            if why is not None:
                return _bury(consumer, message, why)
            return handle(message)
        except passing:
            raise
        except Exception as error:
            if message.acknowledged:  # it is settled: what failed then must not end the worker
                logger.exception("worker.message_settled_with_trouble")
                return None
            return _bury(consumer, message, error)

    return on_task_received


def _bury(consumer: Any, message: Any, why: object) -> None:
    text = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else str(why)
    logger.error(
        "worker.message_unreadable: %s; its headers: %s",
        text[:500],
        safe_repr(message.headers)[:1000],
    )
    bury = getattr(message.channel, "bury", None)
    if bury is None:  # another broker's, or Temporal's
        message.reject_log_error(logger, consumer.connection_errors)
    else:
        bury(message.delivery_tag, text)
        message._state = "REJECTED"
    signals.task_rejected.send(
        sender=consumer, message=message, exc=why if isinstance(why, Exception) else None
    )


def why_unreadable(message: Any) -> str | None:
    """Tell what keeps a request from being made of a message; None: nothing that can be seen."""
    if message.errors:
        return f"it cannot be decompressed: {message.errors[0][1]!r}"
    headers = message.headers
    if not isinstance(headers, Mapping):
        return f"its headers are {headers!r:.60}"
    if "task" not in headers:
        return None  # of protocol 1, or nobody's: Celery's handler tells
    return _of_headers(headers) or _of_body(message)


def _of_headers(headers: Mapping[str, Any]) -> str | None:
    for name in ("id", "task"):
        if not _is_name(headers.get(name)):
            return f"its {name} is {headers.get(name)!r:.60}"
    for name in ("root_id", "parent_id", "group", "shadow", "origin", "argsrepr", "kwargsrepr"):
        value = headers.get(name)
        if value is not None and not isinstance(value, str):
            return f"its {name} is {value!r:.60}"
    for name in ("root_id", "parent_id", "group"):
        if "\x00" in (headers.get(name) or ""):
            return f"its {name} holds a NUL"
    for name in ("eta", "expires"):
        if (value := headers.get(name)) is not None and not _is_instant(value):
            return f"its {name} is {value!r:.60}, which is no instant between the years 1 and 9999"
    retries = headers.get("retries")
    if retries is not None and not _is_number(retries, at_most=_MOST_RETRIES):
        return f"its retries are {retries!r:.60}"
    return _of_limits(headers.get("timelimit")) or _of_stamps(headers) or _of_ours(headers.get(HEADER))


def _of_limits(limits: Any) -> str | None:
    if limits is None:
        return None
    if not isinstance(limits, list | tuple) or len(limits) != 2:
        return f"its timelimit is {limits!r:.60}"
    if all(each is None or _is_number(each, at_most=_LONGEST_LIMIT) for each in limits):
        return None
    return f"its timelimit is {limits!r:.60}"


def _of_stamps(headers: Mapping[str, Any]) -> str | None:
    """A request is asked for them before it runs, to see whether one of them is revoked, in the worker's own loop."""
    names, stamps = headers.get("stamped_headers"), headers.get("stamps") or {}
    if not names:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
        return f"its stamped_headers are {names!r:.60}"
    return None if isinstance(stamps, Mapping) else f"its stamps are {stamps!r:.60}"


def _of_ours(header: Any) -> str | None:
    if header is None:
        return None
    if not isinstance(header, Mapping):
        return f"its header {HEADER!r} is {header!r:.60}"
    tenant, delivery, engine = (header.get(name) for name in ("tenant", "delivery", "engine"))
    if tenant is not None and not _is_name(tenant):
        return f"its tenant is {tenant!r:.60}"
    try:
        _ = (None if delivery is None else UUID(delivery), None if engine is None else Engine(engine))
    except (ValueError, TypeError, AttributeError):
        return f"its delivery is {delivery!r:.60}, by the engine {engine!r:.60}"
    return None


def _of_body(message: Any) -> str | None:
    try:
        args, kwargs, embed = message.payload
    except (TypeError, ValueError):
        return f"its body is {message.payload!r:.60}, and not [args, kwargs, embed]"
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        return f"its arguments are {args!r:.60} and {kwargs!r:.60}"
    if embed is None:
        return None
    if not isinstance(embed, Mapping):
        return f"what follows it is {embed!r:.60}"
    for name, kind in (("callbacks", list), ("errbacks", list), ("chain", list), ("chord", Mapping)):
        value = embed.get(name)
        if value is not None and not isinstance(value, (kind, tuple) if kind is list else kind):
            return f"its {name} is {value!r:.60}"
        if name != "chord" and not all(_is_signature(each) for each in value or ()):
            return f"its {name} is {value!r:.60}, and not of signatures"
    return None


def _is_signature(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("task"), str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\x00" not in value


def _is_number(value: Any, *, at_most: float) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value <= at_most
    )


def _is_instant(value: Any) -> bool:
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return False
    return True

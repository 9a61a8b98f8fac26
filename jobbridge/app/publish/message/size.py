"""How large a message may be, seen before anything of it is stored.

A message is kept whole by its sender, by Postgres and by its worker, some of them several times: one of hundreds of
megabytes ends a worker, not only its job. What is counted is what would be stored: body, headers and properties.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kombu import serialization
from kombu.exceptions import EncodeError
from kombu.utils import json as kombu_json

from jobbridge.app.errors import TooLarge

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def check_size(app: Celery, name: str, size: int) -> None:
    """Refuse a message that is too large.

    Args:
        app: Whose.
        name: Of the task.
        size: In bytes.

    Raises:
        TooLarge: It says its size, and the setting.
    """
    limit = app.settings.payload_limit
    if size > limit:
        raise TooLarge.of(f"The message for {name!r}", size=size, limit=limit)


def check_stored(app: Celery, name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse a message that is too large, in the form in which our broker stores it.

    Raises:
        TooLarge: As `check_size`.
    """
    check_size(app, name, sum(len(parameters[each]) for each in ("body", "headers", "properties")))


def check_body(app: Celery, body: Any, options: Mapping[str, Any]) -> int:
    """Refuse a message that is too large, before its producer serializes it; what cannot be serialized, that says.

    Returns:
        Its size, in bytes.

    Raises:
        TooLarge: As `check_size`.
    """
    serializer = options.get("serializer") or app.conf.task_serializer
    try:
        _, _, data = serialization.dumps(body, serializer=serializer)
        headers = kombu_json.dumps(options.get("headers") or {})
    except (EncodeError, TypeError, ValueError):
        return 0
    size = len(data) + len(headers)
    check_size(app, options["headers"].get("task", ""), size)
    return size

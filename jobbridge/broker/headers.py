"""What is stored of a task message's headers: not those that Celery sends empty, in each message.

They take 140 bytes of each message, and of the log. Who takes the message gets them as they were sent; a worker of a
release that does not know of this finds nothing where there was null, which is the same to Celery.

Source: celery 5.7, app/amqp.py `as_task_v2`; worker/request.py and app/task.py `Context`, where each has a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Headers that are null unless they are told otherwise.
EMPTY = frozenset({"shadow", "eta", "expires", "group", "group_index", "parent_id", "stamped_headers"})
_LIMITS, _NO_LIMITS = "timelimit", ([None, None], (None, None))


def lean_headers(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out of a task's headers what is empty; any other message's are as they are."""
    if not _is_of_task(headers):
        return headers
    return {
        name: value
        for name, value in headers.items()
        if (value is not None or name not in EMPTY) and (name != _LIMITS or value not in _NO_LIMITS)
    }


def whole_headers(headers: dict[str, Any]) -> dict[str, Any]:
    """Give the headers with what was left out of them."""
    if not _is_of_task(headers):
        return headers
    return {**dict.fromkeys(sorted(EMPTY)), _LIMITS: [None, None], **headers}


def _is_of_task(headers: Mapping[str, Any]) -> bool:
    return "task" in headers and "id" in headers

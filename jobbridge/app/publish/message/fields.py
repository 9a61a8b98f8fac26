"""What a job's row has from its message, in the row's own form."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kombu.utils import json as kombu_json

from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import job_id_for

#: Arguments are kept in the row for people to read; larger ones only in the message. Characters.
READABLE_LIMIT = 64 * 1024
#: Values of which it is seen at once that they are JSON, and not too large: so many, so long.
_FEW, _SHORT = 20, 1000
_NUMBERS = frozenset({int, bool, type(None)})
_PLAIN_NUMBERS = _NUMBERS | {float}


def readable_arguments(task: Any, body: Any, headers: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments as JSON, under `data`; their `repr` if they are large or no JSON.

    Args:
        task: The task if it is known here; it may have a form of its own (a handler's data, masked).
        body: Arguments, and what follows.
        headers: Of the message.
    """
    args, kwargs, _ = body
    is_handler = handler_of(task) is not None
    if not is_handler and is_simple(args) and is_simple(kwargs):
        return {"data": _plain_arguments(args, kwargs)}
    readable = (task.readable_arguments if is_handler else _plain_arguments)(args, kwargs)
    try:
        text = kombu_json.dumps(readable)
    except Exception:  # whoever writes the message says what cannot be sent
        text = ""
    if not text or len(text) > READABLE_LIMIT or "\\u0000" in text:
        return {"argsrepr": headers.get("argsrepr"), "kwargsrepr": headers.get("kwargsrepr")}
    return {"data": json.loads(text)}


def instant(text: str | datetime | None) -> datetime | None:
    """Read an instant of a header."""
    return text if text is None or isinstance(text, datetime) else datetime.fromisoformat(text)


def optional_id(task_id: str | None) -> uuid.UUID | None:
    """Give the job id of a task id, if there is one."""
    return None if task_id is None else job_id_for(task_id)


def is_simple(values: Any) -> bool:
    """Whether these values, or names and values, are few, short, and JSON already."""
    if not values:
        return True
    if len(values) > _FEW:
        return False
    if isinstance(values, Mapping):
        return is_simple(list(values)) and is_simple(list(values.values()))
    return all(
        type(each) in _NUMBERS or (type(each) is str and len(each) <= _SHORT and "\x00" not in each)
        for each in values
    )


def plain_reprs(args: Any, kwargs: Any) -> dict[str, str]:
    """Give `argsrepr` and `kwargsrepr` of a few numbers, as Celery's `saferepr` has them; what is left out is its."""
    told = {}
    if type(args) is tuple and len(args) <= _FEW // 2 and all(type(each) in _PLAIN_NUMBERS for each in args):
        told["argsrepr"] = repr(args)
    if not kwargs:
        told["kwargsrepr"] = "{}"
    return told


def _plain_arguments(args: Any, kwargs: Any) -> dict[str, Any]:
    return {"args": list(args), "kwargs": dict(kwargs)}

"""What a job's row has from its message, in the row's own form."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kombu.utils import json as kombu_json

from jobbridge.core.keys import job_id_for

#: Arguments are kept in the row for people to read; larger ones only in the message. Characters.
READABLE_LIMIT = 64 * 1024


def readable_arguments(task: Any, body: Any, headers: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments as JSON, under `data`; their `repr` if they are large or no JSON.

    Args:
        task: The task if it is known here; it may have a form of its own (a handler's data, masked).
        body: Arguments, and what follows.
        headers: Of the message.
    """
    args, kwargs, _ = body
    readable = getattr(task, "readable_arguments", _plain_arguments)(args, kwargs)
    try:
        text = kombu_json.dumps(readable)
    except (TypeError, ValueError, UnicodeDecodeError):
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


def _plain_arguments(args: Any, kwargs: Any) -> dict[str, Any]:
    return {"args": list(args), "kwargs": dict(kwargs)}

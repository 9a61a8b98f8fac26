"""The forms in which a row keeps a result or an error, and what Celery makes of them."""

from __future__ import annotations

import builtins
import json
from typing import Any

from celery import exceptions
from kombu.utils import json as kombu_json

from jobbridge.core.shown import cut, shown
from jobbridge.core.shown import error_line as line_of


def as_json(value: Any) -> tuple[Any, bool, int]:
    """Give a readable form, whether Celery can restore the value from it, and its length as text."""
    try:
        text = kombu_json.dumps(value)
    except Exception:  # a value's own code may be asked, and it may be nested too deep
        return {"repr": shown(value).replace("\x00", "")}, False, 0
    if "\\u0000" in text:
        return json.loads(text.replace("\\u0000", "")), False, len(text)  # Postgres has no NUL in jsonb
    # Nor NaN, Infinity and lone surrogates. These words also occur in plain text, which then is only kept twice.
    return json.loads(text), not any(word in text for word in ("NaN", "Infinity", "\\ud")), len(text)


def revoked(reason: str) -> dict[str, Any]:
    """Give the exception of a job that was revoked."""
    return {"exc_type": "TaskRevokedError", "exc_message": [reason], "exc_module": "celery.exceptions"}


def not_registered(name: str) -> dict[str, Any]:
    """Give the exception of a job whose task no worker knew."""
    return {"exc_type": "NotRegistered", "exc_message": [name], "exc_module": exceptions.__name__}


def exception_of(line: str) -> dict[str, Any]:
    """Give the exception that an error's line tells of, as far as it does; see `error_line`."""
    name, _, text = line.partition(": ")
    for module in (builtins, exceptions):
        known = getattr(module, name, None)
        # Not SystemExit, say: whoever asks for the result would end of it.
        if isinstance(known, type) and issubclass(known, Exception):
            return {"exc_type": name, "exc_message": [text], "exc_module": module.__name__}
    if name.isidentifier() and name.endswith(("Error", "Exception")):
        return {"exc_type": name, "exc_message": [text], "exc_module": exceptions.__name__}
    return {"exc_type": "Exception", "exc_message": [line], "exc_module": builtins.__name__}


def error_line(result: Any) -> str:
    """Give an error as the row has it: its class and its text."""
    if isinstance(result, dict) and "exc_type" in result:
        message = result.get("exc_message")
        text = " ".join(map(str, message)) if isinstance(message, list | tuple) else str(message)
        return f"{result['exc_type']}: {text}"
    return line_of(result) if isinstance(result, BaseException) else str(result)


def cut_exception(result: Any, limit: int) -> dict[str, Any]:
    """Give an exception that is too large to keep in Celery's readable form, with the beginning of its text.

    Args:
        result: The exception, or Celery's readable form of it.
        limit: In bytes, of everything that is kept of it.
    """
    if isinstance(result, dict):
        kind, module = result.get("exc_type", "Exception"), result.get("exc_module")
    else:
        kind, module = type(result).__name__, type(result).__module__
    text = error_line(result).removeprefix(f"{kind}: ")
    return {"exc_type": kind, "exc_message": [cut(text, limit)], "exc_module": module}

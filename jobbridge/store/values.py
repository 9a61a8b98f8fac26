"""Python values as Postgres can hold them.

Postgres refuses NUL characters in text and jsonb; jsonb refuses NaN, infinities and lone surrogates. An error
message may hold any of them, and bookkeeping must not fail for it: they become U+FFFD, or the number's name as text.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from psycopg.types.json import Jsonb

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])|\bNaN\b|\bInfinity\b")
#: Without one of these there is no such thing: the text of a whole portion is searched for them in no time.
_TRACES = ("\\u0000", "\\ud", "\\uD", "NaN", "Infinity")


def as_text(text: str | None) -> str | None:
    """Replace the characters that a text column cannot hold."""
    return None if text is None else _UNSTORABLE.sub("\ufffd", text)


def as_jsonb(value: Any) -> Jsonb:
    """Wrap a JSON value for a jsonb column; what is no JSON inside it becomes text."""
    return Jsonb(value, dumps=json_text)


def as_message(value: Any) -> str | None:
    """Write a message for a text column, exactly: what is read back is equal.

    Raises:
        TypeError: It is no JSON.
    """
    return None if value is None else json.dumps(value, separators=(",", ":"))


def json_text(value: Any) -> str:
    """Write a JSON value as jsonb takes it; what is no JSON inside it becomes text."""
    text = json.dumps(value, default=str, separators=(",", ":"))
    if any(trace in text for trace in _TRACES) and _SUSPICIOUS.search(text):
        return json.dumps(_storable(json.loads(text)), separators=(",", ":"))
    return text


def _storable(value: Any) -> Any:
    match value:
        case str():
            return as_text(value)
        case float() if not math.isfinite(value):
            return str(value)
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {as_text(key): _storable(item) for key, item in value.items()}
        case _:
            return value

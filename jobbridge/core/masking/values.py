"""Secrets are masked wherever data, results, errors and logs are shown: by names of values, and by what they look like.

An error often quotes what it stumbled over: a connection string, the arguments of a call, a request's headers. So texts
are masked by the same names as data (`secret_texts`).
"""

from __future__ import annotations

import re
from typing import Any

from jobbridge.core.masking.texts import CREDENTIALS, ENCRYPTED, MASK, TOKENS, without_passwords

__all__ = ["MASK", "is_secret", "masked", "without_passwords"]

#: Names of values that nobody has to see.
_SECRET = re.compile(
    rf"{CREDENTIALS}|{TOKENS}|(?<![a-z])(?:auth|dsn|cvv|cvc|t?otp|pw)$|(?-i:(?<![a-z])pass|Pass|PASS)$",
    re.IGNORECASE,
)
#: Characters of a name; what is longer is no name, but a text.
_NAME_LIMIT = 60


def masked(value: Any) -> Any:
    """Give a JSON value without its secrets, at any depth."""
    match value:
        case {"$encrypted": str() as text, **more} if not more and text.startswith("jb1:"):
            return ENCRYPTED
        case dict():
            hidden = _hidden_value(value)
            return {
                _key(key): MASK if (is_secret(key) or key == hidden) and inner is not None else masked(inner)
                for key, inner in value.items()
            }
        case [str() as name, str()] if is_secret(name):  # a header, in a list of headers
            return [name, MASK]
        case list() | tuple():
            return [masked(inner) for inner in value]
        case str():
            return without_passwords(value)
        case _:
            return value


def is_secret(name: object) -> bool:
    """Tell whether what has this name is nobody's to see."""
    text = str(name)
    return len(text) <= _NAME_LIMIT and _SECRET.search(text) is not None


def _key(key: Any) -> Any:
    return without_passwords(key) if isinstance(key, str) else key


def _hidden_value(value: dict[Any, Any]) -> str | None:
    """Give under which key the secret is of a pair such as `{"name": "Authorization", "value": …}`."""
    known = {key.lower(): key for key in value if isinstance(key, str)}
    name = value.get(known.get("name", known.get("key")))
    return known.get("value") if isinstance(name, str) and is_secret(name) else None

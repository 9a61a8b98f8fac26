"""Secrets are masked wherever data, results and errors are shown: by the names of values, and by what they look like.

An error often quotes what it stumbled over: a connection string, the arguments of a call, a request's headers. So texts
are masked by the same names as data. What is looked through may be long and anybody's: each pattern is bounded to the
left of what it anchors at, so that the time grows with the length and not faster.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "••••••"

_WORDS = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|token|authori[sz]ation|credential|cookie|"
    r"(?:api|access|private|signing|encryption)[-_ ]?key|connection[-_ ]?string)"
)
#: Names of values that nobody has to see.
_SECRET = re.compile(
    rf"{_WORDS}|(?<![a-z])(?:auth|dsn|cvv|cvc)$|(?-i:(?<![a-z])pass|Pass|PASS)$", re.IGNORECASE
)
#: Characters of a name; what is longer is no name, but a text.
_NAME_LIMIT = 60

#: What a text is looked through for at once, since most have nothing of it.
_SUSPECT = re.compile(rf"{_WORDS}|://|bearer|jbt_", re.IGNORECASE)

_IN_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host
    (re.compile(r"(://[^:/@\s]*:)[^/\s\"'<>]*@"), rf"\1{MASK}@"),
    # "password": "…", as in JSON and in what Python writes of a dict
    (
        re.compile(
            rf"(\\{{0,3}}[\"'])([^\"'\n\\]{{0,40}}{_WORDS}[^\"'\n\\]{{0,40}})\1(\s*:\s*)(\\{{0,3}}[\"'])(?:(?!\4)(?:\\.|.))+",
            re.IGNORECASE,
        ),
        rf"\1\2\1\3\4{MASK}",
    ),
    # password='…', as in what Python writes of a call, in shells and in connection strings
    (
        re.compile(rf"({_WORDS}[\w-]{{0,40}}=)(\\{{0,3}}[\"'])(?:(?!\2)(?:\\.|.))+", re.IGNORECASE),
        rf"\1\2{MASK}",
    ),
    # password=…, also in the query of an address
    (
        re.compile(rf"({_WORDS}[\w-]{{0,40}}=)(?!=|None\b|null\b)[^\s&;,\"'()\[\]{{}}\\]+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    # What requests carry.
    (
        re.compile(
            r"(authori[sz]ation:\s{0,9}\w{1,20}\s{1,9}|\bbearer\s{1,9}(?=[\w.~+/=-]{16})|"
            r"(?:api|access|private)[-_ ]?key:\s{0,9}(?=[\w.~+/=-]{8}))[\w.~+/=-]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # Our own tokens.
    (re.compile(r"\bjbt_[\w-]{20,}"), f"jbt_{MASK}"),
)


def masked(value: Any) -> Any:
    """Give a JSON value without its secrets, at any depth."""
    match value:
        case dict():
            hidden = _hidden_value(value)
            return {
                key: MASK if (is_secret(key) or key == hidden) and inner is not None else masked(inner)
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


def without_passwords(text: str | None) -> str:
    """Hide passwords, tokens and the like in a text."""
    text = text or ""
    if _SUSPECT.search(text) is None:
        return text
    for pattern, instead in _IN_TEXT:
        text = pattern.sub(instead, text)
    return text


def _hidden_value(value: dict[Any, Any]) -> str | None:
    """Give under which key the secret is of a pair such as `{"name": "Authorization", "value": …}`."""
    name = value.get("name", value.get("key"))
    return "value" if isinstance(name, str) and "value" in value and is_secret(name) else None

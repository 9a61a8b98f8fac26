"""Which errors are alike: those of one type of job whose first lines differ in ids and numbers only."""

from __future__ import annotations

import re
from hashlib import sha256

from jobbridge.core.masking.texts import without_passwords

#: What differs from one failure to the next of the same kind: ids and numbers.
_VARYING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{12,}\b|\d+", re.IGNORECASE)
_MESSAGE = 300
_DIGITS = 10


def message_of(error: str | None) -> str:
    """Give what is shown of an error in a list: the first 300 characters of its first line, without passwords."""
    return without_passwords((error or "").strip().partition("\n")[0])[:_MESSAGE]


def kind_of(error: str | None) -> str:
    """Give what errors that are alike have in common."""
    return _VARYING.sub("#", message_of(error))


def group_of(type_: str, error: str | None) -> str:
    """Name the group of a job's error: ten hexadecimal digits, the same wherever and whenever they are asked for."""
    return sha256(f"{type_}\0{kind_of(error)}".encode()).hexdigest()[:_DIGITS]

"""What users' code returns and raises, as text for people: whatever it does when it is asked for that.

An exception's `__str__` may raise, a value's `__repr__` may recurse too deep. That is the task's failure, and must not
be the worker's.
"""

from __future__ import annotations

from jobbridge.errors import megabytes


def shown(value: object, *, longest: int = 2000) -> str:
    """Give a value's repr, at most so many characters of it."""
    try:
        return repr(value)[:longest]
    except Exception as error:
        return f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"


def text_of(error: object) -> str:
    """Give the own text of an exception, or of what stands for one."""
    try:
        return str(error)
    except Exception as trouble:
        return f"<its text cannot be had: {type(trouble).__name__}>"


def error_line(error: BaseException) -> str:
    """Give an exception as rows have it: its class and its text."""
    return f"{type(error).__name__}: {text_of(error)}"


def cut(text: str, limit: int) -> str:
    """Cut a text that is too large to keep to its beginning, and say how large it was.

    Args:
        text: As UTF-8 it may have `limit` bytes.
        limit: Of what is larger a sixteenth of it stays: a row has the text more than once, and escaped.
    """
    if len(text) * 4 <= limit:  # no character has more bytes
        return text
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= limit:
        return text
    kept = encoded[: limit // 16].decode("utf-8", "ignore")
    return f"{kept} … (cut: it is {megabytes(len(encoded))} MB, and {megabytes(limit)} MB are allowed)"

"""What users' code returns and raises, as text for people: whatever it does when it is asked for that.

An exception's `__str__` may raise, a value's `__repr__` may recurse too deep. That is the task's failure, and must not
be the worker's.
"""

from __future__ import annotations


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

"""Temporal that is slow to answer, since thousands of workflows begin or end at the same time, is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from jobbridge.errors import EngineUnavailable

_Value = TypeVar("_Value")
_Item = TypeVar("_Item")

#: For so long; what is asked may be asked twice.
PATIENCE = timedelta(seconds=90)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


def patiently(ask: Callable[[], _Value], *, only_if_slow: bool = False) -> _Value:
    """Ask until there is an answer.

    Args:
        ask: One question.
        only_if_slow: A server that cannot be reached is asked once: it is away, and not busy.

    Raises:
        EngineUnavailable: There has been none for `PATIENCE`.
    """
    deadline, pause = time.monotonic() + PATIENCE.total_seconds(), _FIRST_PAUSE
    while True:
        try:
            return ask()
        except EngineUnavailable as error:
            if time.monotonic() > deadline or (only_if_slow and error.certainly_not_started):
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def in_portions(
    ask: Callable[[Sequence[_Item]], list[_Value]], items: Sequence[_Item], *, size: int
) -> list[_Value]:
    """Ask for many, a portion at a time, until there are all answers, in the order of the items.

    A portion that is too large for a slow server will be so the next time, too: it is halved.

    Raises:
        EngineUnavailable: There has been no answer for `PATIENCE`.
    """
    answers: list[_Value] = []
    answered_at, pause = time.monotonic(), _FIRST_PAUSE
    while len(answers) < len(items):
        try:
            answers += ask(items[len(answers) : len(answers) + size])
        except EngineUnavailable:
            if time.monotonic() - answered_at > PATIENCE.total_seconds():
                raise
            size = max(1, size // 2)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            answered_at, pause = time.monotonic(), _FIRST_PAUSE
    return answers

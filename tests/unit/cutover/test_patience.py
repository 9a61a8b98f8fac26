"""A server that is slow is asked again, for less."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from jobbridge.cutover.engines.patience import in_portions, patiently
from jobbridge.errors import EngineUnavailable


def test_a_portion_that_is_too_large_is_halved_until_it_is_answered() -> None:
    asked: list[int] = []

    def double(portion: Sequence[int]) -> list[int]:
        asked.append(len(portion))
        if len(portion) > 3:
            raise EngineUnavailable("It did not answer in time.")
        return [2 * each for each in portion]

    assert in_portions(double, list(range(10)), size=8) == [2 * each for each in range(10)]
    assert asked == [8, 4, 2, 2, 2, 2, 2]


def test_nothing_is_asked_for_nothing() -> None:
    def never(portion: Sequence[int]) -> list[int]:
        raise AssertionError(portion)

    assert in_portions(never, [], size=8) == []


def test_a_server_that_is_away_is_asked_once_and_a_slow_one_again() -> None:
    away, slow = EngineUnavailable("It cannot be reached."), EngineUnavailable("It did not answer in time.")
    slow.certainly_not_started = False
    answers: list[EngineUnavailable | str] = [slow, "here", away, "here"]

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, EngineUnavailable):
            raise answer
        return answer

    assert patiently(ask, only_if_slow=True) == "here"
    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        patiently(ask, only_if_slow=True)

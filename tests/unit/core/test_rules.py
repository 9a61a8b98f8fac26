"""What rules across the fleet may be given."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jobbridge.core.rules.limits import concurrency_rules, rate_of, rate_rules
from jobbridge.errors import UnsupportedOption


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ("100/s", (100, timedelta(seconds=1))),
        ("10/5m", (10, timedelta(minutes=5))),
        (7, (7, timedelta(seconds=1))),
        (0.5, (1, timedelta(seconds=2))),
    ],
)
def test_a_rate_is_how_many_in_which_time(given: Any, rate: tuple[int, timedelta]) -> None:
    assert rate_of(given) == rate


@pytest.mark.parametrize(
    "given", ["", "x", "1/0s", "1/99999999999d", -1, 0, 1e-300, float("inf"), float("nan"), 1e300]
)
def test_what_is_no_rate_is_refused(given: Any) -> None:
    with pytest.raises(UnsupportedOption):
        rate_rules(given)


@pytest.mark.parametrize("ageing", [0, -1, 1e300, float("inf"), float("nan"), "soon", timedelta(days=40_000)])
def test_an_ageing_that_is_no_time_is_refused(ageing: Any) -> None:
    with pytest.raises(UnsupportedOption):
        concurrency_rules({"limit": 3, "ageing": ageing})

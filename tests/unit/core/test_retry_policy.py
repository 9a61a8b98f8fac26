from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.core.retry import RetryPolicy


def test_the_default_is_three_attempts_one_second_doubling_up_to_thirty() -> None:
    policy = RetryPolicy()

    assert [policy.wait_after(n).total_seconds() for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert policy.allows_another(ConnectionError(), 2)
    assert not policy.allows_another(ConnectionError(), 3)


def test_a_non_retryable_error_and_its_subclasses_end_it() -> None:
    policy = RetryPolicy(non_retryable=(LookupError,))

    assert not policy.allows_another(KeyError("x"), 1)
    assert policy.allows_another(ValueError("x"), 1)


@given(attempt=st.integers(1, 10_000), factor=st.floats(1, 1e6), first=st.integers(0, 3600))
def test_no_wait_is_longer_than_the_maximum(attempt: int, factor: float, first: int) -> None:
    policy = RetryPolicy(first=timedelta(seconds=first), factor=factor, maximum=timedelta(seconds=3600))

    assert timedelta(0) <= policy.wait_after(attempt) <= timedelta(seconds=3600)


def test_an_error_that_asks_for_a_longer_wait_gets_it_and_a_shorter_one_does_not() -> None:
    class Busy(Exception):
        retry_after = timedelta(minutes=7)

    policy = RetryPolicy()
    assert policy.wait_after(1, Busy()) == timedelta(minutes=7)
    Busy.retry_after = timedelta(0)
    assert policy.wait_after(1, Busy()) == policy.wait_after(1) == timedelta(seconds=1)


def test_a_kind_of_error_has_its_own_number_of_attempts_and_the_nearest_class_counts() -> None:
    policy = RetryPolicy(max_attempts=2, attempts={OSError: 10, ConnectionError: 4, ValueError: 1})

    def most(error: BaseException) -> int:
        return next(number for number in range(1, 20) if not policy.allows_another(error, number))

    errors = (RuntimeError(), ValueError(), UnicodeError(), ConnectionResetError(), PermissionError())
    assert [most(error) for error in errors] == [2, 1, 1, 4, 10]
    assert (policy.most_attempts, RetryPolicy().most_attempts) == (10, 3)
    assert hash(policy) == hash(RetryPolicy(max_attempts=2))  # as before, it may be a key


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"factor": 0.5},
        {"first": timedelta(seconds=-1)},
        {"attempts": {ValueError: 0}},
        {"attempts": {"ValueError": 2}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"attempts? |wait|shrink"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]  # wrong on purpose

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.handlers.money import (
    CENT,
    amount_text,
    duration_text,
    percent_text,
    period_text,
    quantity_text,
    rate_text,
    round_up,
    to_cents,
)


@pytest.mark.parametrize(
    ("amount", "cents"),
    [
        ("0.005", "0.01"),
        ("0.0049", "0.00"),
        ("2.675", "2.68"),
        ("-0.005", "-0.01"),
        ("-2.674", "-2.67"),
        ("3", "3.00"),
    ],
)
def test_halves_are_rounded_away_from_zero(amount: str, cents: str) -> None:
    assert to_cents(Decimal(amount)) == Decimal(cents)
    assert to_cents(Fraction(amount)) == Decimal(cents)
    assert str(to_cents(Fraction(amount))) == str(to_cents(Decimal(amount))).replace("-0.00", "0.00")


@given(st.fractions(min_value=-(10**9), max_value=10**9))
def test_rounding_moves_an_amount_by_half_a_cent_at_most(amount: Fraction) -> None:
    rounded = to_cents(amount)
    assert abs(Fraction(rounded) - amount) <= Fraction(1, 200)
    assert rounded == rounded.quantize(CENT)


@given(st.integers(0, 10_000), st.integers(1, 240))
def test_time_is_rounded_up_by_less_than_a_step(minutes: int, step: int) -> None:
    rounded = round_up(minutes, step)
    assert rounded % step == 0
    assert 0 <= rounded - minutes < step


def test_numbers_are_written_for_people() -> None:
    assert amount_text(Decimal("1234567.5")) == "1,234,567.50"
    assert amount_text(Decimal("-126")) == "-126.00"
    assert rate_text(Decimal("85.0000")) == "85.00"
    assert rate_text(Decimal("97.3550")) == "97.355"
    assert quantity_text(Decimal("120.00")) == "120"
    assert quantity_text(Decimal("14.75")) == "14.75"
    assert duration_text(75) == "1:15"
    assert duration_text(60_005) == "1,000:05"
    assert percent_text(Decimal("23.000")) == "23 %"
    assert percent_text(Decimal("13.500")) == "13.5 %"
    assert percent_text(Decimal("0.000")) == "0 %"
    assert period_text(date(2026, 10, 1), date(2026, 10, 31)) == "1 to 31 October 2026"
    assert period_text(date(2026, 12, 1), date(2027, 1, 31)) == "1 December 2026 to 31 January 2027"

"""How amounts are rounded, and how they are written.

Rules: an amount is rounded once, when a line is priced: to the cent, halves away from zero (what a person with
a pocket calculator gets, and what tax offices expect). Tax is computed per rate on the sum of the rounded lines, and
rounded once. The total is the sum of what is printed, so it can be checked by hand.
"""

from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

CENT = Decimal("0.01")
ZERO = Decimal("0.00")


def to_cents(amount: Decimal | Fraction) -> Decimal:
    """Round to the cent, halves away from zero."""
    if isinstance(amount, Fraction):
        cents = abs(amount) * 100
        rounded = Decimal((2 * cents.numerator + cents.denominator) // (2 * cents.denominator)) / 100
        return (rounded if amount >= 0 else -rounded).quantize(CENT)
    return amount.quantize(CENT, rounding=ROUND_HALF_UP)


def round_up(minutes: int, step: int) -> int:
    """Give the next multiple of `step`: 16 minutes in steps of 15 are 30."""
    return -(-minutes // step) * step


def amount_text(amount: Decimal) -> str:
    """Write 1234.5 as `1,234.50`."""
    return f"{amount:,.2f}"


def rate_text(rate: Decimal) -> str:
    """Write a rate with two decimals, or with as many of its four as it needs."""
    short = rate.quantize(CENT)
    return f"{short:,.2f}" if short == rate else f"{rate.normalize():,f}"


def quantity_text(quantity: Decimal) -> str:
    """Write 12.00 as `12` and 0.50 as `0.5`."""
    return f"{quantity.normalize():,f}"


def duration_text(minutes: int) -> str:
    """Write minutes as hours: 75 is `1:15`."""
    hours, rest = divmod(minutes, 60)
    return f"{hours:,}:{rest:02}"


def percent_text(percent: Decimal) -> str:
    """Write 23.000 as `23 %`."""
    return f"{percent.normalize():f} %"


MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip  # not strftime: documents do not depend on the worker's locale


def date_text(day: date) -> str:
    """Write `31 October 2026`."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def period_text(start: date, end: date) -> str:
    """Write `1 to 31 October 2026`, and both months if they are two."""
    is_one_month = (start.year, start.month) == (end.year, end.month)
    return f"{start.day if is_one_month else date_text(start)} to {date_text(end)}"

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.handlers.invoicing.billing import months_covered, price
from jobbridge.handlers.invoicing.errors import NoRate, NoTaxRate
from jobbridge.handlers.invoicing.models import ContractLine, LineKind, Period
from jobbridge.handlers.money import to_cents
from tests.books import OCTOBER, VAT, account, contract_line, time_entry


@pytest.mark.parametrize(
    ("start", "end", "months"),
    [
        (date(2026, 10, 1), date(2026, 10, 31), Fraction(1)),
        (date(2026, 10, 12), date(2026, 10, 31), Fraction(20, 31)),
        (date(2026, 1, 1), date(2026, 12, 31), Fraction(12)),
        (date(2028, 2, 29), date(2028, 2, 29), Fraction(1, 29)),
        (date(2026, 12, 31), date(2027, 1, 1), Fraction(2, 31)),
    ],
)
def test_months_count_by_the_share_of_their_days(start: date, end: date, months: Fraction) -> None:
    assert months_covered(Period(start=start, end=end)) == months


def test_a_fixed_fee_is_quantity_times_rate() -> None:
    bill = price(
        account([contract_line(quantity=Decimal(34), rate=Decimal("38.50"), unit="device")]), OCTOBER
    )

    (line,) = bill.lines
    assert (line.net, line.quantity, line.unit, line.minutes) == (Decimal("1309.00"), 34, "device", None)


def test_a_fixed_fee_counts_from_the_day_the_contract_starts_and_says_so() -> None:
    line = contract_line(active=Period(start=date(2026, 10, 12), end=date(2027, 10, 11)), rate=Decimal("310"))

    (priced,) = price(account([line]), OCTOBER).lines

    assert priced.net == Decimal("200.00")
    assert priced.description == "Remote helpdesk (12 to 31 October 2026)"


def test_a_fixed_fee_for_a_service_that_is_sold_by_the_hour_is_by_the_month() -> None:
    (line,) = price(account([contract_line()]), OCTOBER).lines

    assert line.unit == "month"


def test_a_line_of_a_contract_outside_the_window_is_not_billed() -> None:
    line = contract_line(active=Period(start=date(2026, 11, 1), end=date(2026, 12, 31)))

    assert price(account([line]), OCTOBER).lines == ()


def test_each_time_entry_is_rounded_up_as_its_line_says() -> None:
    line = contract_line(LineKind.HOURLY, round_minutes_to=15, rate=Decimal("85"))

    (priced,) = price(account([line], [time_entry(5), time_entry(16), time_entry(30)]), OCTOBER).lines

    assert priced.minutes == 15 + 30 + 30
    assert priced.net == Decimal("106.25")


def test_an_hourly_amount_comes_from_minutes_not_from_rounded_hours() -> None:
    line = contract_line(LineKind.HOURLY, rate=Decimal("97.3550"))

    (priced,) = price(account([line], [time_entry(7)]), OCTOBER).lines

    assert priced.net == Decimal("11.36")  # 7/60 h, where 0.12 h would give 11.68
    assert priced.quantity == Decimal("0.12")


def test_an_hourly_line_without_time_is_left_out() -> None:
    assert price(account([contract_line(LineKind.HOURLY)]), OCTOBER).lines == ()


def test_time_goes_to_a_bucket_before_an_hourly_line_of_the_same_service() -> None:
    hourly = contract_line(LineKind.HOURLY)
    bucket = contract_line(LineKind.BUCKET, included_minutes=600, overage_rate=Decimal("90"))

    bill = price(account([hourly, bucket], [time_entry(60)]), OCTOBER)

    assert [line.contract_line_id for line in bill.lines] == [bucket.contract_line_id]
    assert bill.bucket_uses[0].used_minutes == 60


def test_a_bucket_costs_its_fee_and_the_time_beyond() -> None:
    bucket = contract_line(
        LineKind.BUCKET,
        included_minutes=60,
        rate=Decimal("150"),
        overage_rate=Decimal("92.50"),
        round_minutes_to=15,
    )

    bill = price(account([bucket], [time_entry(70), time_entry(40, technician="Tom Okafor")]), OCTOBER)

    assert [line.net for line in bill.lines] == [Decimal("150.00"), Decimal("92.50")]
    assert "2:00 h used of 1:00 h" in bill.lines[0].description
    assert bill.bucket_uses[0].overage_minutes == bill.lines[1].minutes == 60


def test_what_earlier_periods_left_is_used_before_time_beyond_a_bucket_is_billed() -> None:
    bucket = contract_line(LineKind.BUCKET, included_minutes=60, overage_rate=Decimal("90"))
    left = {bucket.contract_line_id: 45}

    bill = price(account([bucket], [time_entry(100)], rolled_over=left), OCTOBER)

    assert len(bill.lines) == 1
    assert bill.bucket_uses[0].overage_minutes == 0
    assert "0:45 h carried over" in bill.lines[0].description


def test_a_line_without_a_rate_is_refused_and_named() -> None:
    with pytest.raises(NoRate, match="line-77") as caught:
        price(account([contract_line(contract_line_id="line-77", rate=None)]), OCTOBER)
    assert "Set a rate" in caught.value.hint


def test_a_bucket_without_a_rate_beyond_is_refused_only_when_it_is_exceeded() -> None:
    bucket = contract_line(LineKind.BUCKET, included_minutes=60)

    assert len(price(account([bucket], [time_entry(60)]), OCTOBER).lines) == 1
    with pytest.raises(NoRate):
        price(account([bucket], [time_entry(61)]), OCTOBER)


def test_time_that_no_line_prices_is_refused_and_named() -> None:
    entry = time_entry(60, entry_id="entry-9", service_id="onsite")

    with pytest.raises(NoRate, match=r"entry-9 \(onsite, 2026-10-05\)"):
        price(account([contract_line(LineKind.HOURLY)], [entry]), OCTOBER)


def test_time_before_the_contract_is_refused() -> None:
    late = contract_line(LineKind.HOURLY, active=Period(start=date(2026, 10, 12), end=date(2027, 1, 1)))

    with pytest.raises(NoRate):
        price(account([late], [time_entry(60, work_date=date(2026, 10, 9))]), OCTOBER)


def test_a_missing_tax_rate_is_refused() -> None:
    with pytest.raises(NoTaxRate, match="'IE' has no 'luxury' rate"):
        price(account([contract_line(tax_code="luxury")]), OCTOBER)


def test_tax_is_rounded_once_per_rate() -> None:
    # Line by line, 23 % of 0.10 is 0.02 each: 0.06. On the sum it is 0.07.
    lines = [contract_line(rate=Decimal("0.10")) for _ in range(3)]

    bill = price(account(lines), OCTOBER)

    assert bill.tax == Decimal("0.07")
    assert bill.total == Decimal("0.37")


def test_taxes_are_listed_highest_rate_first() -> None:
    bill = price(account([contract_line(tax_code="reduced"), contract_line(tax_code="standard")]), OCTOBER)

    assert [tax.tax_percent for tax in bill.taxes] == [Decimal("23"), Decimal("13.5")]


def test_a_discount_is_a_line_with_a_negative_rate() -> None:
    bill = price(account([contract_line(rate=Decimal("840")), contract_line(rate=Decimal("-126"))]), OCTOBER)

    assert bill.subtotal == Decimal("714.00")


_lines = st.builds(
    contract_line,
    kind=st.sampled_from(LineKind),
    rate=st.decimals("-500", "5000", places=4),
    overage_rate=st.decimals("0", "500", places=4),
    quantity=st.decimals("0", "500", places=2),
    included_minutes=st.integers(0, 3000),
    round_minutes_to=st.integers(1, 60),
    tax_code=st.sampled_from(sorted(VAT)),
)


@given(st.lists(_lines, max_size=6), st.lists(st.integers(1, 600), max_size=20))
def test_what_is_printed_adds_up(lines: list[ContractLine], minutes: list[int]) -> None:
    lines = [*lines, contract_line(LineKind.HOURLY)]

    bill = price(account(lines, [time_entry(each) for each in minutes]), OCTOBER)

    assert bill.subtotal == sum(line.net for line in bill.lines)
    assert bill.subtotal == sum(tax.taxable for tax in bill.taxes)
    assert bill.tax == sum(tax.tax for tax in bill.taxes)
    assert bill.total == bill.subtotal + bill.tax
    assert all(to_cents(line.net) == line.net for line in bill.lines)

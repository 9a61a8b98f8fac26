"""Price a window: what is to be paid, from contract lines, time worked and buckets. Pure.

- A fixed fee counts for the days that window and contract share, month by month: all days of a month make 1.
- Time goes to the line of its service: to a bucket if there is one, else to an hourly line. Each entry is rounded up
  as its line says; the line is the sum.
- Time in a bucket counts as `bucket_time` says: more outside business hours, overlaps once.
- A bucket costs its fee; the time beyond what it includes, and beyond what earlier periods left, costs extra.
"""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import assert_never

from jobbridge.handlers.invoicing.bucket_time import counted_minutes
from jobbridge.handlers.invoicing.errors import NoRate, NoTaxRate
from jobbridge.handlers.invoicing.models import (
    Account,
    Bill,
    BillLine,
    BillTax,
    BucketUse,
    ContractLine,
    LineKind,
    Period,
    TimeEntry,
)
from jobbridge.handlers.money import ZERO, duration_text, period_text, round_up, to_cents


def price(account: Account, window: Period) -> Bill:
    """Give the bill of a window.

    Raises:
        NoRate: A line, or time worked, has no price.
        NoTaxRate: The client's region has no rate for a service.
    """
    worked = _entries_by_line(account)
    uses = tuple(
        bucket_use(line, account, worked[line.contract_line_id], window)
        for line in account.lines
        if line.kind is LineKind.BUCKET and line.active.overlap(window)
    )
    use_of = {use.contract_line_id: use for use in uses}
    lines = tuple(
        priced
        for line in account.lines
        for priced in _priced(line, account, worked[line.contract_line_id], use_of, window)
    )
    taxes = _taxes(lines)
    subtotal = sum((line.net for line in lines), ZERO)
    tax = sum((one.tax for one in taxes), ZERO)
    return Bill(lines=lines, taxes=taxes, bucket_uses=uses, subtotal=subtotal, tax=tax, total=subtotal + tax)


def months_covered(period: Period) -> Fraction:
    """Give a period in months: each month counts by the share of its days."""
    months = Fraction(0)
    day = period.start
    while day <= period.end:
        days_in_month = calendar.monthrange(day.year, day.month)[1]
        last = min(date(day.year, day.month, days_in_month), period.end)
        months += Fraction((last - day).days + 1, days_in_month)
        day = last + timedelta(days=1)
    return months


def _entries_by_line(account: Account) -> Mapping[str, Sequence[TimeEntry]]:
    found: dict[str, list[TimeEntry]] = defaultdict(list)
    for entry in account.entries:
        found[line_for(entry, account).contract_line_id].append(entry)
    return found


def line_for(entry: TimeEntry, account: Account) -> ContractLine:
    """Give the line that a time entry goes to.

    Raises:
        NoRate: There is none.
    """
    fitting = [
        line
        for line in account.lines
        if line.kind is not LineKind.FIXED
        and line.service_id == entry.service_id
        and entry.work_date in line.active
    ]
    if not fitting:
        raise NoRate.about(
            account.client_id,
            f"time entry {entry.entry_id} ({entry.service_id}, {entry.work_date})",
        )
    return min(
        fitting, key=lambda line: line.kind is not LineKind.BUCKET
    )  # stable: else in the contract's order


def _priced(
    line: ContractLine,
    account: Account,
    entries: Sequence[TimeEntry],
    use_of: Mapping[str, BucketUse],
    window: Period,
) -> Iterable[BillLine]:
    shared = line.active.overlap(window)
    if shared is None:
        return
    match line.kind:
        case LineKind.FIXED:
            yield _monthly_fee(line, account, shared, window)
        case LineKind.HOURLY:
            if entries:
                yield _time(line, account, _rounded_minutes(line, entries), line.description, line.rate)
        case LineKind.BUCKET:
            use = use_of[line.contract_line_id]
            yield _monthly_fee(line, account, shared, window, suffix=f", {_bucket_text(use)}")
            if use.overage_minutes:
                text = f"{line.description}: beyond the included time"
                yield _time(line, account, use.overage_minutes, text, line.overage_rate)
        case _:
            assert_never(line.kind)


def _monthly_fee(
    line: ContractLine, account: Account, shared: Period, window: Period, suffix: str = ""
) -> BillLine:
    rate = _known(line, account, line.rate)
    months = months_covered(shared)
    partly = f" ({period_text(shared.start, shared.end)})" if shared != window else ""
    net = to_cents(Fraction(line.quantity) * Fraction(rate) * months)
    unit = "month" if line.unit == "hour" else line.unit  # a fee for time is per month, not per hour
    return _line(line, account, f"{line.description}{suffix}{partly}", line.quantity, unit, None, rate, net)


def _time(line: ContractLine, account: Account, minutes: int, text: str, rate: Decimal | None) -> BillLine:
    known = _known(line, account, rate)
    hours = Fraction(minutes, 60)
    return _line(
        line, account, text, to_cents(hours), "hour", minutes, known, to_cents(hours * Fraction(known))
    )


def _line(
    line: ContractLine,
    account: Account,
    text: str,
    quantity: Decimal,
    unit: str,
    minutes: int | None,
    rate: Decimal,
    net: Decimal,
) -> BillLine:
    tax = account.tax_rates.get(line.tax_code)
    if tax is None:
        raise NoTaxRate.about(account.client_id, account.tax_region, line.tax_code)
    return BillLine(
        contract_line_id=line.contract_line_id,
        description=text,
        unit=unit,
        quantity=quantity,
        minutes=minutes,
        rate=rate,
        tax_name=tax.name,
        tax_percent=tax.percent,
        net=net,
    )


def _known(line: ContractLine, account: Account, rate: Decimal | None) -> Decimal:
    if rate is None:
        raise NoRate.about(
            account.client_id,
            f"contract line {line.contract_line_id} ({line.description})",
        )
    return rate


def _rounded_minutes(line: ContractLine, entries: Iterable[TimeEntry]) -> int:
    return sum(round_up(entry.minutes, line.round_minutes_to) for entry in entries)


def bucket_use(
    line: ContractLine, account: Account, entries: Sequence[TimeEntry], window: Period
) -> BucketUse:
    """Give what was used of a bucket in a window, of time that goes to it."""
    shared = line.active.overlap(window)
    # In the provider's favour by less than a minute: only whole minutes are given.
    included = int(line.included_minutes * months_covered(shared)) if shared else 0
    rolled_over = account.rolled_over.get(line.contract_line_id, 0)
    used = counted_minutes(
        entries,
        hours=account.business_hours,
        multiplier=line.after_hours_multiplier,
        round_to=line.round_minutes_to,
    )
    return BucketUse(
        contract_line_id=line.contract_line_id,
        included_minutes=included,
        rolled_over_minutes=rolled_over,
        used_minutes=used,
        overage_minutes=max(0, used - included - rolled_over),
    )


def _bucket_text(use: BucketUse) -> str:
    more = f" + {duration_text(use.rolled_over_minutes)} h carried over" if use.rolled_over_minutes else ""
    return f"{duration_text(use.used_minutes)} h used of {duration_text(use.included_minutes)} h{more}"


def _taxes(lines: Iterable[BillLine]) -> tuple[BillTax, ...]:
    taxable: dict[tuple[str, Decimal], Decimal] = {}
    for line in lines:
        rate = (line.tax_name, line.tax_percent)
        taxable[rate] = taxable.get(rate, ZERO) + line.net
    return tuple(
        BillTax(tax_name=name, tax_percent=percent, taxable=net, tax=to_cents(net * percent / 100))
        for (name, percent), net in sorted(taxable.items(), key=lambda item: (-item[0][1], item[0][0]))
    )

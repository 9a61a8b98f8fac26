"""The data of the three jobs, and the words of invoicing.

Money is `Decimal` with two decimals, a rate has four, time is whole minutes. Both ends of a period belong to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from jobbridge.handlers.job_data import JobData
from jobbridge.handlers.providers import BusinessHours, Provider

LONGEST_WINDOW = timedelta(days=366)


class GenerateInvoice(JobData):
    """Bill one client for the days from `period_start` to `period_end`, both included."""

    client_id: str = Field(min_length=1)
    period_start: date
    period_end: date

    @model_validator(mode="after")
    def _window_is_sensible(self) -> Self:
        if self.period_end < self.period_start:
            raise ValueError(f"period_end {self.period_end} is before period_start {self.period_start}")
        if self.period_end - self.period_start >= LONGEST_WINDOW:
            raise ValueError(f"the window {self.period_start} to {self.period_end} is longer than a year")
        return self

    @property
    def window(self) -> Period:
        return Period(start=self.period_start, end=self.period_end)


def _each_once(ids: tuple[UUID, ...]) -> tuple[UUID, ...]:
    return tuple(dict.fromkeys(ids))


InvoiceIds = Annotated[tuple[UUID, ...], Field(min_length=1, max_length=5000), AfterValidator(_each_once)]


class ZipInvoices(JobData):
    """Put these invoices into one archive; an id given twice counts once."""

    invoice_ids: InvoiceIds


class EmailInvoices(JobData):
    """Mail each of these invoices to its client; an id given twice counts once."""

    invoice_ids: InvoiceIds


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Period:
    """Days in a row, both ends included."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start} to {self.end}"

    def overlap(self, other: Period) -> Period | None:
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Period(start=start, end=end) if start <= end else None

    def __contains__(self, day: date) -> bool:
        return self.start <= day <= self.end


class LineKind(StrEnum):
    FIXED = "fixed"  # a monthly fee
    HOURLY = "hourly"  # time worked, at a rate per hour
    BUCKET = "bucket"  # a monthly fee that includes some time; more costs extra


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractLine:
    """What a client pays for, and how.

    Attributes:
        active: The days of its contract.
        rate: Per month and unit (fixed, bucket) or per hour (hourly); None: nobody has set one.
        overage_rate: Per hour beyond a bucket.
        round_minutes_to: Each time entry is rounded up to a multiple of this.
        included_minutes: In a bucket, per month.
        after_hours_multiplier: What a minute outside business hours counts in a bucket.
    """

    contract_line_id: str
    service_id: str
    kind: LineKind
    description: str
    unit: str
    tax_code: str
    active: Period
    quantity: Decimal
    rate: Decimal | None
    overage_rate: Decimal | None = None
    round_minutes_to: int = 1
    included_minutes: int = 0
    after_hours_multiplier: Decimal = Decimal(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeEntry:
    entry_id: str
    service_id: str
    work_date: date
    started_at: datetime
    minutes: int
    technician: str
    ticket: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TaxRate:
    name: str
    percent: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """All that the price of one client's window depends on.

    Attributes:
        tax_rates: By tax code, valid in the client's region at the end of the window.
        business_hours: What is outside of them counts more, in buckets that say so.
        rolled_over: Minutes left from earlier periods, by contract line of a bucket.
    """

    client_id: str
    tax_region: str
    lines: Sequence[ContractLine]
    entries: Sequence[TimeEntry]
    tax_rates: Mapping[str, TaxRate]
    business_hours: BusinessHours
    rolled_over: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class BillLine:
    """One priced line; `minutes` is set where the quantity is time."""

    contract_line_id: str
    description: str
    unit: str
    quantity: Decimal
    minutes: int | None
    rate: Decimal
    tax_name: str
    tax_percent: Decimal
    net: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class BillTax:
    """The tax of all lines with one rate."""

    tax_name: str
    tax_percent: Decimal
    taxable: Decimal
    tax: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketUse:
    contract_line_id: str
    included_minutes: int
    rolled_over_minutes: int
    used_minutes: int
    overage_minutes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    lines: tuple[BillLine, ...]
    taxes: tuple[BillTax, ...]
    bucket_uses: tuple[BucketUse, ...]
    subtotal: Decimal
    tax: Decimal
    total: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    client_id: str
    name: str
    vat_number: str | None
    tax_region: str
    payment_days: int
    zero_amount_rule: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InvoiceHead:
    """The row of an invoice."""

    invoice_id: UUID
    number: str
    job_id: str
    client_id: str
    client_name: str
    status: str
    period_start: date
    period_end: date
    issued_on: date
    due_on: date
    currency: str
    bill_to: list[str]
    client_vat_number: str | None
    subtotal: Decimal
    tax: Decimal
    total: Decimal

    @property
    def period(self) -> Period:
        return Period(start=self.period_start, end=self.period_end)


@dataclass(frozen=True, kw_only=True, slots=True)
class Invoice:
    """All that is printed."""

    head: InvoiceHead
    provider: Provider
    lines: Sequence[BillLine]
    taxes: Sequence[BillTax]
    entries: Sequence[TimeEntry]

"""Factories for tests of the handlers pack: accounts to price, and databases with the shipped data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg

from jobbridge.handlers.dataset import BILLABLE_CLIENTS, MONTH, import_dataset
from jobbridge.handlers.invoicing.generate import bill_window
from jobbridge.handlers.invoicing.models import (
    Account,
    BillLine,
    BillTax,
    ContractLine,
    Invoice,
    InvoiceHead,
    LineKind,
    Period,
    TaxRate,
    TimeEntry,
)
from jobbridge.handlers.providers import BusinessHours, Provider

ALWAYS = Period(start=date(2020, 1, 1), end=date(9999, 12, 31))
OCTOBER = Period(start=date(2026, 10, 1), end=date(2026, 10, 31))
VAT = {
    "standard": TaxRate(name="VAT", percent=Decimal("23")),
    "reduced": TaxRate(name="VAT", percent=Decimal("13.5")),
}

OFFICE_HOURS = BusinessHours(
    zone=ZoneInfo("Europe/Dublin"), days=frozenset({1, 2, 3, 4, 5}), opens_at=time(8), closes_at=time(18)
)

_numbers = count(1)


def contract_line(kind: LineKind = LineKind.FIXED, **changes: Any) -> ContractLine:
    values: dict[str, Any] = {
        "contract_line_id": f"line-{next(_numbers)}",
        "service_id": "helpdesk",
        "kind": kind,
        "description": "Remote helpdesk",
        "unit": "hour",
        "tax_code": "standard",
        "active": ALWAYS,
        "quantity": Decimal(1),
        "rate": Decimal("100"),
    }
    return ContractLine(**values | changes)


def time_entry(minutes: int, **changes: Any) -> TimeEntry:
    values: dict[str, Any] = {
        "entry_id": f"entry-{next(_numbers)}",
        "service_id": "helpdesk",
        "work_date": date(2026, 10, 5),
        "started_at": datetime(2026, 10, 5, 9, tzinfo=UTC),
        "minutes": minutes,
        "technician": "Ciara Walsh",
        "ticket": "T-1",
        "note": "Mailbox moved",
    }
    return TimeEntry(**values | changes)


def account(lines: Sequence[ContractLine], entries: Sequence[TimeEntry] = (), **changes: Any) -> Account:
    values: dict[str, Any] = {
        "client_id": "acme", "tax_region": "IE", "tax_rates": VAT, "business_hours": OFFICE_HOURS
    }  # fmt: skip
    return Account(lines=lines, entries=entries, **values | changes)


def invoice(**changes: Any) -> Invoice:
    """An invoice over 1,230.00, of which 230.00 is tax."""
    head: dict[str, Any] = {
        "invoice_id": UUID(int=1),
        "number": "INV-00001",
        "job_id": "job",
        "client_id": "acme",
        "client_name": "Acme Ltd",
        "status": "issued",
        "period_start": OCTOBER.start,
        "period_end": OCTOBER.end,
        "issued_on": OCTOBER.end,
        "due_on": date(2026, 11, 30),
        "currency": "EUR",
        "bill_to": ["Acme Ltd", "1 Main Street", "D01 Dublin"],
        "client_vat_number": None,
        "subtotal": Decimal("1000.00"),
        "tax": Decimal("230.00"),
        "total": Decimal("1230.00"),
    }
    line = BillLine(
        contract_line_id="line",
        description="Remote helpdesk",
        unit="hour",
        quantity=Decimal("10.00"),
        minutes=600,
        rate=Decimal("100.0000"),
        tax_name="VAT",
        tax_percent=Decimal("23.000"),
        net=Decimal("1000.00"),
    )
    tax = BillTax(
        tax_name="VAT", tax_percent=Decimal("23.000"), taxable=Decimal("1000.00"), tax=Decimal("230.00")
    )
    parts: dict[str, Any] = {
        "provider": provider(),
        "lines": [line],
        "taxes": [tax],
        "entries": [time_entry(600)],
    }
    for name in [name for name in changes if name in parts]:
        parts[name] = changes.pop(name)
    return Invoice(head=InvoiceHead(**head | changes), **parts)


def provider() -> Provider:
    return Provider(
        name="Harbour IT Services Ltd",
        street="Unit 4",
        postal_code="T12 X5PK",
        city="Cork",
        country="Ireland",
        email="accounts@harbour-it.example",
        phone="+353 21 555 0142",
        vat_number="IE 9700053D",
        iban="IE29 AIBK 9311 5212 3456 78",
        bic="AIBKIE2D",
        currency="EUR",
        invoice_prefix="INV-",
    )


class Books:
    """A database with the data set of one or more tenants."""

    def __init__(self, database_url: str, *tenants: str, are_imported: bool = False) -> None:
        self.url = database_url
        self.tenant = tenants[0]
        if are_imported:
            return
        with self.transaction() as connection:
            for tenant in tenants:
                import_dataset(connection, tenant)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.url) as connection:
            yield connection

    def value(self, statement: str, *values: object) -> Any:
        with self.transaction() as connection:
            row = connection.execute(statement.encode(), values).fetchone()
            assert row is not None
            return row[0]

    def run(self, statement: str, *values: object) -> None:
        with self.transaction() as connection:
            connection.execute(statement.encode(), values)

    def bill(
        self, client_id: str, *, tenant: str | None = None, window: Period = MONTH, job: str = ""
    ) -> InvoiceHead:
        """Bill a client as the job would, and give the invoice."""
        with self.transaction() as connection:
            billed = bill_window(
                connection, tenant or self.tenant, job or f"bill-{client_id}", client_id, window
            )
        assert billed.invoice is not None
        return billed.invoice

    def bill_all(self, *, tenant: str | None = None) -> list[InvoiceHead]:
        return [self.bill(client_id, tenant=tenant) for client_id in BILLABLE_CLIENTS]

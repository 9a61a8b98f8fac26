"""The rows of invoices: take a number, write, find, read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from uuid import UUID

from jobbridge.handlers.invoicing.errors import UnknownInvoice, WindowAlreadyBilled
from jobbridge.handlers.invoicing.models import (
    Account,
    Bill,
    BillLine,
    BillTax,
    Client,
    Invoice,
    InvoiceHead,
    Period,
    TimeEntry,
)
from jobbridge.handlers.providers import Provider, provider_of
from jobbridge.handlers.sql import Connection, one, rows_as, run

INVOICE_OF_JOB = """
SELECT invoice_id
FROM psa.invoices
WHERE tenant = %(tenant)s AND job_id = %(job_id)s
"""

INVOICE_OF_DAYS = """
SELECT number, period_start, period_end
FROM psa.invoices
WHERE tenant = %(tenant)s
  AND client_id = %(client_id)s
  AND status <> 'void'
  AND period_start <= %(end)s
  AND period_end >= %(start)s
ORDER BY period_start
LIMIT 1
"""

# The row stays locked until the invoice that takes the number is committed, so there are no gaps: a rollback
# gives the number back.
NEXT_NUMBER = """
INSERT INTO psa.invoice_counters AS counter (tenant, last_number)
VALUES (%(tenant)s, 1)
ON CONFLICT (tenant) DO UPDATE SET last_number = counter.last_number + 1
RETURNING last_number
"""

INSERT_INVOICE = """
INSERT INTO psa.invoices (tenant, number, job_id, client_id, status, period_start, period_end, issued_on, due_on,
    currency, bill_to, subtotal, tax, total)
VALUES (%(tenant)s, %(number)s, %(job_id)s, %(client_id)s, %(status)s, %(start)s, %(end)s, %(issued_on)s, %(due_on)s,
    %(currency)s, %(bill_to)s, %(subtotal)s, %(tax)s, %(total)s)
RETURNING invoice_id
"""

INSERT_LINE = """
INSERT INTO psa.invoice_lines (tenant, invoice_id, position, contract_line_id, description, unit, quantity, minutes,
    rate, tax_name, tax_percent, net)
VALUES (%(tenant)s, %(invoice_id)s, %(position)s, %(contract_line_id)s, %(description)s, %(unit)s, %(quantity)s,
    %(minutes)s, %(rate)s, %(tax_name)s, %(tax_percent)s, %(net)s)
"""

INSERT_TAX = """
INSERT INTO psa.invoice_taxes (tenant, invoice_id, position, tax_name, tax_percent, taxable, tax)
VALUES (%(tenant)s, %(invoice_id)s, %(position)s, %(tax_name)s, %(tax_percent)s, %(taxable)s, %(tax)s)
"""

MARK_TIME_BILLED = """
UPDATE psa.time_entries
SET invoice_id = %(invoice_id)s
WHERE tenant = %(tenant)s AND entry_id = ANY(%(entry_ids)s)
"""

KEEP_BUCKET_USE = """
INSERT INTO psa.bucket_usage (tenant, contract_line_id, period_start, period_end, included_minutes,
    rolled_over_minutes, used_minutes, overage_minutes)
VALUES (%(tenant)s, %(contract_line_id)s, %(start)s, %(end)s, %(included_minutes)s,
    %(rolled_over_minutes)s, %(used_minutes)s, %(overage_minutes)s)
ON CONFLICT (tenant, contract_line_id, period_start) DO UPDATE
SET period_end = EXCLUDED.period_end,
    included_minutes = EXCLUDED.included_minutes,
    used_minutes = EXCLUDED.used_minutes,
    overage_minutes = EXCLUDED.overage_minutes
"""

HEADS = """
SELECT invoice.invoice_id, invoice.number, invoice.job_id, invoice.client_id, client.name AS client_name,
    invoice.status, invoice.period_start, invoice.period_end, invoice.issued_on, invoice.due_on, invoice.currency,
    invoice.bill_to, client.vat_number AS client_vat_number, invoice.subtotal, invoice.tax, invoice.total
FROM psa.invoices AS invoice
JOIN psa.clients AS client USING (tenant, client_id)
WHERE invoice.tenant = %(tenant)s AND invoice.invoice_id = ANY(%(invoice_ids)s)
ORDER BY invoice.number
"""

LINES = """
SELECT contract_line_id, description, unit, quantity, minutes, rate, tax_name, tax_percent, net
FROM psa.invoice_lines
WHERE tenant = %(tenant)s AND invoice_id = %(invoice_id)s
ORDER BY position
"""

TAXES = """
SELECT tax_name, tax_percent, taxable, tax
FROM psa.invoice_taxes
WHERE tenant = %(tenant)s AND invoice_id = %(invoice_id)s
ORDER BY position
"""

TIME = """
SELECT entry_id, service_id, work_date, started_at, minutes, technician, ticket, note
FROM psa.time_entries
WHERE tenant = %(tenant)s AND invoice_id = %(invoice_id)s
ORDER BY started_at, entry_id
"""


def invoice_of_job(connection: Connection, tenant: str, job_id: str) -> InvoiceHead | None:
    """Give the invoice that this job has made already, if it has."""
    found = one(connection, INVOICE_OF_JOB, {"tenant": tenant, "job_id": job_id})
    return head_of(connection, tenant, found[0]) if found else None


def refuse_billed_days(connection: Connection, tenant: str, client_id: str, window: Period) -> None:
    """Pass if no invoice covers a day of the window. Call with the client locked.

    Raises:
        WindowAlreadyBilled: One does; names it.
    """
    parameters = {"tenant": tenant, "client_id": client_id, "start": window.start, "end": window.end}
    found = one(connection, INVOICE_OF_DAYS, parameters)
    if found:
        number, start, end = found
        raise WindowAlreadyBilled.about(client_id, window, number, Period(start=start, end=end))


def write_invoice(
    connection: Connection,
    tenant: str,
    *,
    job_id: str,
    provider: Provider,
    client: Client,
    bill_to: Sequence[str],
    window: Period,
    account: Account,
    bill: Bill,
) -> InvoiceHead:
    """Write the invoice under the next number, and mark the time that it bills."""
    parameters = {
        "tenant": tenant,
        "number": _next_number(connection, tenant, provider.invoice_prefix),
        "job_id": job_id,
        "client_id": client.client_id,
        "status": "issued" if bill.total else "paid",  # nothing to pay
        "start": window.start,
        "end": window.end,
        "issued_on": window.end,
        "due_on": window.end + timedelta(days=client.payment_days),
        "currency": provider.currency,
        "bill_to": list(bill_to),
        "subtotal": bill.subtotal,
        "tax": bill.tax,
        "total": bill.total,
    }
    inserted = one(connection, INSERT_INVOICE, parameters)
    assert inserted is not None  # INSERT … RETURNING gives its row or raises
    invoice_id: UUID = inserted[0]
    _write_parts(connection, tenant, invoice_id, bill)
    entry_ids = [entry.entry_id for entry in account.entries]
    run(connection, MARK_TIME_BILLED, {"tenant": tenant, "invoice_id": invoice_id, "entry_ids": entry_ids})
    for use in bill.bucket_uses:
        run(
            connection,
            KEEP_BUCKET_USE,
            {"tenant": tenant, "start": window.start, "end": window.end, **asdict(use)},
        )
    return head_of(connection, tenant, invoice_id)


def _next_number(connection: Connection, tenant: str, prefix: str) -> str:
    row = one(connection, NEXT_NUMBER, {"tenant": tenant})
    assert row is not None  # an upsert without WHERE always returns its row
    return f"{prefix}{row[0]:05}"


def _write_parts(connection: Connection, tenant: str, invoice_id: UUID, bill: Bill) -> None:
    for position, line in enumerate(bill.lines, start=1):
        key = {"tenant": tenant, "invoice_id": invoice_id, "position": position}
        run(connection, INSERT_LINE, {**key, **asdict(line)})
    for position, tax in enumerate(bill.taxes, start=1):
        key = {"tenant": tenant, "invoice_id": invoice_id, "position": position}
        run(connection, INSERT_TAX, {**key, **asdict(tax)})


def head_of(connection: Connection, tenant: str, invoice_id: UUID) -> InvoiceHead:
    """Give the invoice's row.

    Raises:
        UnknownInvoice: No such invoice in this tenant.
    """
    return heads_of(connection, tenant, [invoice_id])[0]


def heads_of(connection: Connection, tenant: str, invoice_ids: Sequence[UUID]) -> list[InvoiceHead]:
    """Give these invoices' rows, in the order of their numbers.

    Raises:
        UnknownInvoice: One or more do not exist in this tenant; names them all.
    """
    heads = rows_as(InvoiceHead, connection, HEADS, {"tenant": tenant, "invoice_ids": list(invoice_ids)})
    missing = set(invoice_ids) - {head.invoice_id for head in heads}
    if missing:
        raise UnknownInvoice.about(sorted(missing))
    return heads


def read_invoice(connection: Connection, tenant: str, invoice_id: UUID) -> Invoice:
    """Give all that is printed on an invoice.

    Raises:
        UnknownInvoice: No such invoice in this tenant.
    """
    key = {"tenant": tenant, "invoice_id": invoice_id}
    return Invoice(
        head=head_of(connection, tenant, invoice_id),
        provider=provider_of(connection, tenant),
        lines=rows_as(BillLine, connection, LINES, key),
        taxes=rows_as(BillTax, connection, TAXES, key),
        entries=rows_as(TimeEntry, connection, TIME, key),
    )

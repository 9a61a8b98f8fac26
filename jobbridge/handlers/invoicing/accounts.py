"""What the books say about a client: address, contract lines, approved time, tax rates, buckets."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any, LiteralString

from jobbridge.handlers.invoicing.errors import NoBillingAddress, UnapprovedTime, UnknownClient
from jobbridge.handlers.invoicing.models import (
    Account,
    Client,
    ContractLine,
    LineKind,
    Period,
    TaxRate,
    TimeEntry,
)
from jobbridge.handlers.providers import business_hours_of
from jobbridge.handlers.sql import Connection, one, one_as, rows, rows_as

# NO KEY: whoever records time for this client meanwhile is not held up by the invoice.
LOCK_CLIENT = """
SELECT client_id, name, vat_number, tax_region, payment_days, zero_amount_rule
FROM psa.clients
WHERE tenant = %(tenant)s AND client_id = %(client_id)s
FOR NO KEY UPDATE
"""

BILLING_ADDRESS = """
SELECT street, postal_code, city, country
FROM psa.client_locations
WHERE tenant = %(tenant)s
  AND client_id = %(client_id)s
  AND (is_billing OR is_default)
  AND street IS NOT NULL AND postal_code IS NOT NULL AND city IS NOT NULL
ORDER BY is_billing DESC, location_id
LIMIT 1
"""

CONTRACT_LINES = """
SELECT line.contract_line_id, line.service_id, line.kind, line.quantity, service.unit, service.tax_code,
    COALESCE(line.description, service.name) AS description,
    COALESCE(line.rate, service.default_rate) AS rate,
    line.overage_rate, line.round_minutes_to, line.included_minutes, line.after_hours_multiplier,
    contract.starts_on, COALESCE(contract.ends_on, '9999-12-31'::date) AS ends_on
FROM psa.contracts AS contract
JOIN psa.contract_lines AS line USING (tenant, contract_id)
JOIN psa.services AS service USING (tenant, service_id)
WHERE contract.tenant = %(tenant)s
  AND contract.client_id = %(client_id)s
  AND contract.starts_on <= %(end)s
  AND COALESCE(contract.ends_on, 'infinity'::date) >= %(start)s
ORDER BY contract.starts_on, contract.contract_id, line.position, line.contract_line_id
"""

# FOR UPDATE: what is priced is what is marked as billed, whatever others change meanwhile. Time of an invoice that was
# voided is free again.
BILLABLE_TIME = """
SELECT entry.entry_id, entry.service_id, entry.work_date, entry.started_at, entry.minutes, entry.technician,
    entry.ticket, entry.note
FROM psa.time_entries AS entry
WHERE entry.tenant = %(tenant)s
  AND entry.client_id = %(client_id)s
  AND entry.work_date BETWEEN %(start)s AND %(end)s
  AND entry.is_billable
  AND entry.approval = 'approved'
  AND NOT EXISTS (
      SELECT
      FROM psa.invoices AS invoice
      WHERE invoice.tenant = entry.tenant AND invoice.invoice_id = entry.invoice_id AND invoice.status <> 'void'
  )
ORDER BY entry.started_at, entry.entry_id
FOR UPDATE OF entry
"""

# Billed or not: what a bucket has used does not depend on whether it was paid.
WORKED_TIME = """
SELECT entry_id, service_id, work_date, started_at, minutes, technician, ticket, note
FROM psa.time_entries
WHERE tenant = %(tenant)s
  AND client_id = %(client_id)s
  AND work_date BETWEEN %(start)s AND %(end)s
  AND is_billable
  AND approval = 'approved'
ORDER BY started_at, entry_id
"""

UNAPPROVED_TIME = """
SELECT entry_id
FROM psa.time_entries
WHERE tenant = %(tenant)s
  AND client_id = %(client_id)s
  AND work_date BETWEEN %(start)s AND %(end)s
  AND is_billable
  AND approval IN ('draft', 'submitted')
ORDER BY started_at, entry_id
"""

TAX_RATES = """
SELECT tax_code, name, percent
FROM psa.tax_rates
WHERE tenant = %(tenant)s
  AND tax_region = %(tax_region)s
  AND valid_from <= %(day)s
  AND COALESCE(valid_to, 'infinity'::date) >= %(day)s
"""

ROLLED_OVER = """
SELECT usage.contract_line_id, usage.rolled_over_minutes
FROM psa.bucket_usage AS usage
JOIN psa.contract_lines AS line USING (tenant, contract_line_id)
JOIN psa.contracts AS contract USING (tenant, contract_id)
WHERE usage.tenant = %(tenant)s
  AND contract.client_id = %(client_id)s
  AND usage.period_start = %(start)s
"""


def lock_client(connection: Connection, tenant: str, client_id: str) -> Client:
    """Give the client; until the transaction ends, nobody else bills it.

    Raises:
        UnknownClient: No such client in this tenant.
    """
    client = one_as(Client, connection, LOCK_CLIENT, {"tenant": tenant, "client_id": client_id})
    if client is None:
        raise UnknownClient.about(client_id)
    return client


def billing_address(connection: Connection, tenant: str, client: Client, *, home: str) -> list[str]:
    """Give name and address as they are printed; the country only if it is not `home`.

    Raises:
        NoBillingAddress: No billing or default location has an address.
    """
    row = one(connection, BILLING_ADDRESS, {"tenant": tenant, "client_id": client.client_id})
    if row is None:
        raise NoBillingAddress.about(client.client_id, client.name)
    street, postal_code, city, country = row
    abroad = [country] if country and country != home else []
    return [client.name, street, f"{postal_code} {city}", *abroad]


def refuse_unapproved_time(connection: Connection, tenant: str, client_id: str, window: Period) -> None:
    """Pass if all billable time of the window is approved or rejected.

    Raises:
        UnapprovedTime: Some still waits; names it.
    """
    waiting = rows(connection, UNAPPROVED_TIME, _window(tenant, client_id, window))
    if waiting:
        raise UnapprovedTime.about(client_id, [entry_id for (entry_id,) in waiting])


def account_of(connection: Connection, tenant: str, client: Client, window: Period) -> Account:
    """Give all that the price of the window depends on."""
    tax_rates = _tax_rates(connection, tenant, client.tax_region, window.end)
    return replace(_account(connection, tenant, client, window, BILLABLE_TIME), tax_rates=tax_rates)


def worked_account_of(connection: Connection, tenant: str, client: Client, window: Period) -> Account:
    """Give all that the use of buckets depends on: time that is billed already too, and no tax rates."""
    return _account(connection, tenant, client, window, WORKED_TIME)


def _account(
    connection: Connection, tenant: str, client: Client, window: Period, time: LiteralString
) -> Account:
    parameters = _window(tenant, client.client_id, window)
    return Account(
        client_id=client.client_id,
        tax_region=client.tax_region,
        lines=rows_as(_contract_line, connection, CONTRACT_LINES, parameters),
        entries=rows_as(TimeEntry, connection, time, parameters),
        tax_rates={},
        business_hours=business_hours_of(connection, tenant),
        rolled_over=dict(rows(connection, ROLLED_OVER, parameters)),
    )


def _contract_line(*, kind: str, starts_on: date, ends_on: date, **columns: Any) -> ContractLine:
    return ContractLine(kind=LineKind(kind), active=Period(start=starts_on, end=ends_on), **columns)


def _tax_rates(connection: Connection, tenant: str, region: str, day: date) -> dict[str, TaxRate]:
    found = rows(connection, TAX_RATES, {"tenant": tenant, "tax_region": region, "day": day})
    return {code: TaxRate(name=name, percent=percent) for code, name, percent in found}


def _window(tenant: str, client_id: str, window: Period) -> dict[str, object]:
    return {"tenant": tenant, "client_id": client_id, "start": window.start, "end": window.end}

"""Issue the invoice of a client's window: refuse, price, number, write."""

from __future__ import annotations

from dataclasses import dataclass

from jobbridge.handlers.invoicing.accounts import (
    account_of,
    billing_address,
    lock_client,
    refuse_unapproved_time,
)
from jobbridge.handlers.invoicing.billing import price
from jobbridge.handlers.invoicing.invoices import invoice_of_job, refuse_billed_days, write_invoice
from jobbridge.handlers.invoicing.models import InvoiceHead, Period
from jobbridge.handlers.providers import provider_of
from jobbridge.handlers.sql import Connection


@dataclass(frozen=True, kw_only=True, slots=True)
class Billed:
    """What became of a window.

    Attributes:
        outcome: created, existing (this job had made it already), or suppressed (nothing to pay, and the client's
            zero-amount rule wants no invoice then).
        invoice: None if suppressed.
    """

    outcome: str
    invoice: InvoiceHead | None


def bill_window(connection: Connection, tenant: str, job_id: str, client_id: str, window: Period) -> Billed:
    """Write the invoice of a window, or find the one that this job has written. Leaves the commit to the caller.

    Raises:
        Refusal: See the errors of this package; nothing was written.
    """
    client = lock_client(connection, tenant, client_id)
    existing = invoice_of_job(connection, tenant, job_id)
    if existing is not None:
        return Billed(outcome="existing", invoice=existing)
    refuse_billed_days(connection, tenant, client_id, window)
    provider = provider_of(connection, tenant)
    bill_to = billing_address(connection, tenant, client, home=provider.country)
    refuse_unapproved_time(connection, tenant, client_id, window)
    account = account_of(connection, tenant, client, window)
    bill = price(account, window)
    if not bill.total and client.zero_amount_rule == "suppress":
        return Billed(outcome="suppressed", invoice=None)
    invoice = write_invoice(
        connection,
        tenant,
        job_id=job_id,
        provider=provider,
        client=client,
        bill_to=bill_to,
        window=window,
        account=account,
        bill=bill,
    )
    return Billed(outcome="created", invoice=invoice)

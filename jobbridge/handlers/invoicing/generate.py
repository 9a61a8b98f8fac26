"""`generate-invoice`: bill one client for one window.

All of it is one transaction: either there is an invoice with its number, its lines and its time marked as billed, or
nothing has changed. So, step by step, what if the process dies in between, or the job comes twice?

- Dies before the commit: nothing has happened; the next attempt starts afresh, and takes the same number.
- Dies after the commit, before the job is recorded as completed: the next attempt finds the invoice of its own
  job (`UNIQUE (tenant, job_id)`) and returns it.
- The same job runs twice at once: the second waits for the lock on the client, then finds the first one's invoice.
- Two jobs for one client: the same lock; the second is refused if the windows share a day, and names the invoice.
- Two jobs for two clients: both need the tenant's counter, the second waits for the first one's commit. Numbers have
  no gaps. Locks are always taken in the order client, time, counter, so jobs do not deadlock.
- Cancelled before the commit: nothing has happened. Cancelled after it: there is an invoice; the next job for the
  window is refused and names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jobbridge import JobContext, RetryPolicy, job
from jobbridge.handlers.errors import Refusal
from jobbridge.handlers.invoicing.accounts import (
    account_of,
    billing_address,
    lock_client,
    refuse_unapproved_time,
)
from jobbridge.handlers.invoicing.billing import price
from jobbridge.handlers.invoicing.invoices import invoice_of_job, refuse_billed_days, write_invoice
from jobbridge.handlers.invoicing.models import GenerateInvoice, InvoiceHead, Period
from jobbridge.handlers.providers import provider_of
from jobbridge.handlers.sql import Connection

STEPS = 2


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


@job(
    "generate-invoice",
    retry=RetryPolicy(non_retryable=(Refusal,)),
    timeout=timedelta(minutes=5),
    tenant_required=True,
)
def generate_invoice(ctx: JobContext, data: GenerateInvoice) -> dict[str, Any]:
    """Bill one client for one window from contract lines, time entries and bucket usage."""
    ctx.check_cancelled()
    ctx.progress(0, STEPS, f"pricing {data.window} for {data.client_id}")
    with ctx.transaction() as connection:
        billed = bill_window(connection, ctx.tenant_id, ctx.job_id, data.client_id, data.window)
        ctx.check_cancelled()  # the last moment at which nothing has happened
    ctx.progress(STEPS, STEPS, f"invoice {billed.invoice.number}" if billed.invoice else "nothing to pay")
    return described(billed)


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


def described(billed: Billed) -> dict[str, Any]:
    """Give the job's result: amounts as text, because JSON has no decimals."""
    if billed.invoice is None:
        return {"outcome": billed.outcome}
    invoice = billed.invoice
    return {
        "outcome": billed.outcome,
        "invoice_id": str(invoice.invoice_id),
        "number": invoice.number,
        "client_id": invoice.client_id,
        "subtotal": str(invoice.subtotal),
        "tax": str(invoice.tax),
        "total": str(invoice.total),
        "currency": invoice.currency,
    }

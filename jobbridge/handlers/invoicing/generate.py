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

from datetime import timedelta
from typing import Any

from jobbridge import JobContext, RetryPolicy, job
from jobbridge.handlers.errors import Refusal
from jobbridge.handlers.invoicing.issuing import Billed, bill_window
from jobbridge.handlers.invoicing.models import GenerateInvoice

STEPS = 2


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

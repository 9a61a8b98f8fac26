"""`invoice_email`: mail each invoice to its client, each once.

What happens between two steps when the process dies, or the job comes twice, is told in
`jobbridge.handlers.invoicing.mailer`; in short: a retry never sends an earlier mail again.

What fails for one invoice does not stop the others. If anything failed, the job fails at the end and names it. It is
tried again if that can help, and then only what was not sent is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobbridge import JobBridgeError, JobContext, RetryPolicy, job
from jobbridge.errors import ConfigurationError
from jobbridge.handlers.errors import Refusal
from jobbridge.handlers.invoicing.errors import InvoicesCannotBeMailed, InvoicesNotMailed
from jobbridge.handlers.invoicing.invoices import heads_of
from jobbridge.handlers.invoicing.mailer import InvoiceMailer
from jobbridge.handlers.invoicing.models import EmailInvoices, InvoiceHead
from jobbridge.handlers.mailing.errors import MailDeferred, MailError, MailServerUnavailable
from jobbridge.handlers.mailing.smtp import MailSender, SmtpServer


@job(
    "invoice_email",
    retry=RetryPolicy(non_retryable=(Refusal, InvoicesCannotBeMailed, ConfigurationError)),
    tenant_required=True,
)
def invoice_email(ctx: JobContext, data: EmailInvoices) -> dict[str, Any]:
    """Mail invoices to their clients, with the PDF attached."""
    server = SmtpServer.parse(ctx.settings.smtp_url)
    with ctx.transaction() as connection:
        invoices = heads_of(connection, ctx.tenant_id, data.invoice_ids)
    recipients: dict[str, str] = {}
    failures: dict[str, JobBridgeError] = {}
    with MailSender(server) as sender:
        mailer = InvoiceMailer(
            transaction=ctx.transaction,
            tenant=ctx.tenant_id,
            job_id=ctx.job_id,
            mail_from=ctx.settings.mail_from,
            sender=sender,
        )
        for done, invoice in enumerate(invoices):
            ctx.check_cancelled()
            ctx.progress(done, len(invoices), f"mailing {invoice.number}")
            try:
                recipients[invoice.number] = _mail_in_step(ctx, mailer, invoice)
            except (Refusal, MailError) as error:
                ctx.logger.warning(
                    "invoice.not_mailed", extra={"invoice": invoice.number, "reason": str(error)}
                )
                failures[invoice.number] = error
    if failures:
        raise _not_mailed(failures, of=len(invoices))
    ctx.progress(len(invoices), len(invoices), f"mailed {len(invoices)} invoices")
    return {"mailed": len(recipients), "recipients": recipients}


def _mail_in_step(ctx: JobContext, mailer: InvoiceMailer, invoice: InvoiceHead) -> str:
    with ctx.step("email", key=str(invoice.invoice_id)) as step:
        if not step.is_done:
            step.result = {"number": invoice.number, "recipient": mailer.mail_once(invoice)}
    recipient: str = step.result["recipient"]
    return recipient


def _not_mailed(failures: Mapping[str, JobBridgeError], *, of: int) -> InvoicesNotMailed:
    can_be_cured = any(isinstance(error, MailDeferred | MailServerUnavailable) for error in failures.values())
    kind = InvoicesNotMailed if can_be_cured else InvoicesCannotBeMailed
    reasons = {number: str(error) for number, error in failures.items()}
    return kind.about("invoices were not mailed", reasons, of=of)

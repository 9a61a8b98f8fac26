"""`invoice_email`: mail each invoice to its client, each once.

A mail cannot be taken back, and a mail server takes part in no transaction. Between its "250 OK" and our `sent` there
is a moment in which a crash leaves us not knowing. One must err on one side: to send twice, or to stop and say so.
This job **never sends a second time**: two mails about one invoice get it paid twice or make the client doubt both,
while a mail that is in doubt is not lost silently: the job fails and names the invoice, the recipient and the
Message-ID to look for in the mail server's log. The moment is kept as short as it can be: it begins when the server
has accepted both addresses, and ends with its answer.

Step by step, what if the process dies in between, or the job comes twice?

- Dies before the claim (`sending` in the outbox, committed): nothing was sent; the next attempt sends it.
- Dies after the claim, before the mark (`sent`): in doubt, as above.
- Dies after the mark, before the step is done: the next attempt finds `sent`, and does not send.
- The server says no, or is gone before it has the mail: `failed`; the next attempt sends it.
- The same job runs twice at once: the outbox has one row per job and invoice, and one of the two gets it.
- A new job for the same invoice sends it again: somebody asked for that.

What fails for one invoice does not stop the others. If anything failed, the job fails at the end; it is tried again if
that can help, and then only what was not sent is sent. A server that cannot be reached ends the round at
once: it would be the same for each of the others, after another timeout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

from jobbridge import JobBridgeError, JobContext, RetryPolicy, job
from jobbridge.errors import ConfigurationError, DatabaseUnavailable
from jobbridge.handlers.documents import content_of
from jobbridge.handlers.invoicing.accounts import provider_of
from jobbridge.handlers.invoicing.errors import (
    InvoicesCannotBeMailed,
    InvoicesNotMailed,
    MailDeferred,
    MailError,
    MailRefused,
    MailServerUnavailable,
    MailUncertain,
    Refusal,
)
from jobbridge.handlers.invoicing.invoices import heads_of
from jobbridge.handlers.invoicing.mail import Recipient, invoice_mail, message_id_for, recipient_of
from jobbridge.handlers.invoicing.models import EmailInvoices, InvoiceHead
from jobbridge.handlers.invoicing.outbox import MailKey, claim_mail, find_mail, mark_failed, mark_sent
from jobbridge.handlers.invoicing.rendering import ensure_pdf
from jobbridge.handlers.invoicing.smtp import MailSender, SmtpServer
from jobbridge.handlers.sql import Connection

#: Seconds between attempts to write that a mail was sent, when Postgres is away just then.
SETTLE_PAUSES = (0.5, 1.0, 2.0, 4.0)


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
        for done, invoice in enumerate(invoices):
            ctx.check_cancelled()
            ctx.progress(done, len(invoices), f"mailing {invoice.number}")
            try:
                recipients[invoice.number] = _mail_once(ctx, sender, invoice)
            except MailServerUnavailable as error:
                failures |= {other.number: error for other in invoices[done:]}
                break
            except (Refusal, MailError) as error:
                ctx.logger.warning(
                    "invoice.not_mailed", extra={"invoice": invoice.number, "reason": str(error)}
                )
                failures[invoice.number] = error
    if failures:
        raise _not_mailed(failures, of=len(invoices))
    ctx.progress(len(invoices), len(invoices), f"mailed {len(invoices)} invoices")
    return {"mailed": len(recipients), "recipients": recipients}


def _mail_once(ctx: JobContext, sender: MailSender, invoice: InvoiceHead) -> str:
    """Mail one invoice, unless this job has done so; give the recipient's address."""
    with ctx.step("email", key=str(invoice.invoice_id)) as step:
        if not step.is_done:
            step.result = {"number": invoice.number, "recipient": _mail(ctx, sender, invoice)}
    recipient: str = step.result["recipient"]
    return recipient


def _mail(ctx: JobContext, sender: MailSender, invoice: InvoiceHead) -> str:
    key = MailKey(tenant=ctx.tenant_id, job_id=ctx.job_id, invoice_id=invoice.invoice_id)
    with ctx.transaction() as connection:
        earlier = find_mail(connection, key)
        if earlier is None or earlier.status == "failed":
            recipient = recipient_of(connection, ctx.tenant_id, invoice.client_id)
            provider = provider_of(connection, ctx.tenant_id)
        elif earlier.status == "sent":
            return earlier.recipient
        else:
            raise MailUncertain(earlier.recipient, earlier.message_id)
    pdf = ensure_pdf(ctx.transaction, ctx.tenant_id, ctx.job_id, invoice.invoice_id)
    with ctx.transaction() as connection:
        content = content_of(connection, ctx.tenant_id, pdf.document_id)
    mail = invoice_mail(
        invoice,
        provider,
        recipient,
        sender=ctx.settings.mail_from,
        message_id=message_id_for(key, ctx.settings.mail_from),
        sent_at=datetime.now(UTC),
        pdf=content,
    )
    return _send(ctx, sender, key, recipient, mail)


def _send(ctx: JobContext, sender: MailSender, key: MailKey, recipient: Recipient, mail: EmailMessage) -> str:
    is_ours = False

    def claim() -> None:
        nonlocal is_ours
        with ctx.transaction() as connection:
            is_ours = claim_mail(connection, key, recipient=recipient.email, message_id=mail["Message-ID"])
        if not is_ours:
            raise MailUncertain(recipient.email, mail["Message-ID"])

    try:
        reply = sender.send(mail, sender=ctx.settings.mail_from, recipient=recipient.email, claim=claim)
    except (MailDeferred, MailRefused, MailServerUnavailable) as error:
        if is_ours:  # else the row, if there is one, tells of another run's mail
            _settle(ctx, lambda connection, text=str(error): mark_failed(connection, key, text))
        raise
    _settle(ctx, lambda connection: mark_sent(connection, key, reply))
    return recipient.email


def _settle(ctx: JobContext, mark: Callable[[Connection], None]) -> None:
    """Write how it ended. Tried for some seconds: what is not written here is in doubt for ever."""
    for pause in SETTLE_PAUSES:
        try:
            with ctx.transaction() as connection:
                return mark(connection)
        except DatabaseUnavailable:
            ctx.logger.warning("invoice.mail_not_settled", extra={"again_in": pause})
            time.sleep(pause)
    with ctx.transaction() as connection:
        return mark(connection)


def _not_mailed(failures: Mapping[str, JobBridgeError], *, of: int) -> InvoicesNotMailed:
    can_be_cured = any(isinstance(error, MailDeferred | MailServerUnavailable) for error in failures.values())
    kind = InvoicesNotMailed if can_be_cured else InvoicesCannotBeMailed
    return kind({number: str(error) for number, error in failures.items()}, of=of)

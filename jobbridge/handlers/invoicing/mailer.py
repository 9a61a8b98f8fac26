"""Mail one invoice, once per job.

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
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from uuid import UUID

from jobbridge.errors import DatabaseUnavailable
from jobbridge.handlers.documents import content_of
from jobbridge.handlers.invoicing.accounts import provider_of
from jobbridge.handlers.invoicing.errors import (
    MailDeferred,
    MailRefused,
    MailServerUnavailable,
    MailUncertain,
)
from jobbridge.handlers.invoicing.mail import Recipient, invoice_mail, message_id_for, recipient_of
from jobbridge.handlers.invoicing.models import InvoiceHead, Provider
from jobbridge.handlers.invoicing.outbox import MailKey, claim_mail, find_mail, mark_failed, mark_sent
from jobbridge.handlers.invoicing.rendering import Transaction, ensure_pdf
from jobbridge.handlers.invoicing.smtp import MailSender
from jobbridge.handlers.sql import Connection

#: Seconds between attempts to write that a mail was sent, when Postgres is away just then.
SETTLE_PAUSES = (0.5, 1.0, 2.0, 4.0)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class InvoiceMailer:
    """Mails the invoices of one job.

    Attributes:
        mail_from: The address that the mails come from.
    """

    transaction: Transaction
    tenant: str
    job_id: str
    mail_from: str
    sender: MailSender

    def mail_once(self, invoice: InvoiceHead) -> str:
        """Mail an invoice, unless this job has done so; give the recipient's address.

        Raises:
            Refusal: There is no recipient, or the PDF cannot be made.
            MailError: It was not sent, or not certainly.
        """
        with self.transaction() as connection:
            earlier = find_mail(connection, self._key(invoice.invoice_id))
            if earlier is not None and earlier.status == "sent":
                return earlier.recipient
            if earlier is not None and earlier.status == "sending":
                raise MailUncertain.about(earlier.recipient, earlier.message_id)
            recipient = recipient_of(connection, self.tenant, invoice.client_id)
            provider = provider_of(connection, self.tenant)
        self._send(invoice.invoice_id, recipient, self._written(invoice, provider, recipient))
        return recipient.email

    def _key(self, invoice_id: UUID) -> MailKey:
        return MailKey(tenant=self.tenant, job_id=self.job_id, invoice_id=invoice_id)

    def _written(self, invoice: InvoiceHead, provider: Provider, recipient: Recipient) -> EmailMessage:
        pdf = ensure_pdf(self.transaction, self.tenant, self.job_id, invoice.invoice_id)
        with self.transaction() as connection:
            content = content_of(connection, self.tenant, pdf.document_id)
        return invoice_mail(
            invoice,
            provider,
            recipient,
            sender=self.mail_from,
            message_id=message_id_for(self._key(invoice.invoice_id), self.mail_from),
            sent_at=datetime.now(UTC),
            pdf=content,
        )

    def _send(self, invoice_id: UUID, recipient: Recipient, mail: EmailMessage) -> None:
        key, message_id = self._key(invoice_id), str(mail["Message-ID"])
        is_ours = False

        def claim() -> None:
            nonlocal is_ours
            with self.transaction() as connection:
                is_ours = claim_mail(connection, key, recipient=recipient.email, message_id=message_id)
            if not is_ours:
                raise MailUncertain.about(recipient.email, message_id)

        try:
            reply = self.sender.send(mail, sender=self.mail_from, recipient=recipient.email, claim=claim)
        except (MailDeferred, MailRefused, MailServerUnavailable) as error:
            if is_ours:  # else the row, if there is one, tells of another run's mail
                self._settle(key, str(error), mark_failed)
            raise
        self._settle(key, reply, mark_sent)

    def _settle(self, key: MailKey, reply: str, mark: Callable[[Connection, MailKey, str], None]) -> None:
        """Write how it ended. Tried for some seconds: what is not written here is in doubt for ever."""
        for pause in SETTLE_PAUSES:
            try:
                with self.transaction() as connection:
                    return mark(connection, key, reply)
            except DatabaseUnavailable:
                logger.warning(
                    "invoice.mail_not_settled", extra={"invoice": str(key.invoice_id), "again_in": pause}
                )
                time.sleep(pause)
        with self.transaction() as connection:
            return mark(connection, key, reply)

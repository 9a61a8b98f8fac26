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

from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from uuid import UUID

from jobbridge.handlers.documents import content_of
from jobbridge.handlers.invoicing.mail import invoice_mail, message_id_for
from jobbridge.handlers.invoicing.models import InvoiceHead
from jobbridge.handlers.invoicing.outbox import MailKey, claim_mail, find_mail, settle_mail
from jobbridge.handlers.invoicing.rendering import ensure_pdf
from jobbridge.handlers.mailing.errors import MailUncertain
from jobbridge.handlers.mailing.once import Outcome, send_claimed
from jobbridge.handlers.mailing.recipients import Recipient, recipient_of
from jobbridge.handlers.mailing.smtp import MailSender
from jobbridge.handlers.providers import Provider, provider_of
from jobbridge.handlers.sql import Transaction


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
        row = _InvoiceMailRow(
            transaction=self.transaction,
            key=self._key(invoice_id),
            recipient=recipient.email,
            message_id=str(mail["Message-ID"]),
        )
        send_claimed(self.sender, mail, row, mail_from=self.mail_from, recipient=recipient.email)


@dataclass(frozen=True, kw_only=True, slots=True)
class _InvoiceMailRow:
    transaction: Transaction
    key: MailKey
    recipient: str
    message_id: str

    def claim(self) -> None:
        with self.transaction() as connection:
            is_ours = claim_mail(connection, self.key, recipient=self.recipient, message_id=self.message_id)
        if not is_ours:
            raise MailUncertain.about(self.recipient, self.message_id)

    def settle(self, outcome: Outcome, reply: str) -> None:
        with self.transaction() as connection:
            settle_mail(connection, self.key, outcome, reply)

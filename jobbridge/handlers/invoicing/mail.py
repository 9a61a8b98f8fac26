"""The mail that carries an invoice."""

from __future__ import annotations

import uuid
from datetime import datetime
from email.message import EmailMessage

from jobbridge.handlers.invoicing.models import InvoiceHead
from jobbridge.handlers.invoicing.outbox import MailKey
from jobbridge.handlers.mailing.composing import Envelope, compose
from jobbridge.handlers.mailing.recipients import Recipient
from jobbridge.handlers.money import amount_text, date_text
from jobbridge.handlers.providers import Provider

_MESSAGE_IDS = uuid.UUID("1d5dbb14-6f5a-5c0e-8a53-0c8f8c1f27ab")


def message_id_for(key: MailKey, sender: str) -> str:
    """Give the Message-ID: the same in each attempt, so that a mail can be found in the mail server's log."""
    name = uuid.uuid5(_MESSAGE_IDS, f"{key.tenant}\n{key.job_id}\n{key.invoice_id}")
    return f"<invoice.{name}@{sender.rpartition('@')[2]}>"


def invoice_mail(
    invoice: InvoiceHead,
    provider: Provider,
    recipient: Recipient,
    *,
    sender: str,
    message_id: str,
    sent_at: datetime,
    pdf: bytes,
) -> EmailMessage:
    """Write the mail, with the PDF attached.

    Raises:
        BadAddress: The recipient's, the sender's or the provider's address is none.
    """
    envelope = Envelope(
        provider=provider, recipient=recipient, sender=sender, message_id=message_id, sent_at=sent_at
    )
    mail = compose(
        envelope,
        subject=f"Invoice {invoice.number} from {provider.name}",
        text=_text(invoice, provider),
    )
    mail.add_attachment(pdf, maintype="application", subtype="pdf", filename=f"{invoice.number}.pdf")
    return mail


def _text(invoice: InvoiceHead, provider: Provider) -> str:
    due = (
        f"Please pay {invoice.currency} {amount_text(invoice.total)} by {date_text(invoice.due_on)}\n"
        f"to IBAN {provider.iban}, with the reference {invoice.number}."
        if invoice.total
        else "Nothing is to be paid on it."
    )
    return (
        f"Hello,\n\n"
        f"attached is invoice {invoice.number} for {invoice.client_name}:\n"
        f"our services from {date_text(invoice.period_start)} to {date_text(invoice.period_end)}.\n\n"
        f"{due}\n\n"
        f"Any question? Just reply to this mail, or call {provider.phone}.\n\n"
        f"Kind regards\n{provider.name}\n"
    )

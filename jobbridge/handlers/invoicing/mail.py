"""The mail that carries an invoice, and whom it goes to."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from jobbridge.handlers.invoicing.errors import BadAddress, NoRecipient
from jobbridge.handlers.invoicing.models import InvoiceHead, Provider
from jobbridge.handlers.invoicing.money import amount_text, date_text
from jobbridge.handlers.invoicing.outbox import MailKey
from jobbridge.handlers.sql import Connection, one_as

_MESSAGE_IDS = uuid.UUID("1d5dbb14-6f5a-5c0e-8a53-0c8f8c1f27ab")

# The billing contact, else the client's billing address for mail, else a location's: billing, default, any.
RECIPIENT = """
SELECT name, email
FROM (
    SELECT 1 AS rank, contact.name, contact.email, contact.contact_id AS id
    FROM psa.clients AS client
    JOIN psa.contacts AS contact
        ON contact.tenant = client.tenant AND contact.contact_id = client.billing_contact_id
    WHERE client.tenant = %(tenant)s AND client.client_id = %(client_id)s AND contact.is_active
    UNION ALL
    SELECT 2, client.name, client.billing_email, client.client_id
    FROM psa.clients AS client
    WHERE client.tenant = %(tenant)s AND client.client_id = %(client_id)s
    UNION ALL
    SELECT CASE WHEN place.is_billing THEN 3 WHEN place.is_default THEN 4 ELSE 5 END,
        client.name, place.email, place.location_id
    FROM psa.clients AS client
    JOIN psa.client_locations AS place USING (tenant, client_id)
    WHERE client.tenant = %(tenant)s AND client.client_id = %(client_id)s
) AS candidate
WHERE email LIKE '%%_@_%%'
ORDER BY rank, id
LIMIT 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipient:
    name: str
    email: str


def recipient_of(connection: Connection, tenant: str, client_id: str) -> Recipient:
    """Find whom a client's invoices go to.

    Raises:
        NoRecipient: The client has no e-mail address.
    """
    found = one_as(Recipient, connection, RECIPIENT, {"tenant": tenant, "client_id": client_id})
    if found is None:
        raise NoRecipient.about(client_id)
    return found


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
    mail = EmailMessage()
    mail["From"] = _address(provider.name, sender)
    mail["To"] = _address(recipient.name, recipient.email)
    mail["Reply-To"] = _address(provider.name, provider.email)
    mail["Subject"] = f"Invoice {_one_line(invoice.number)} from {_one_line(provider.name)}"
    mail["Date"] = format_datetime(sent_at)
    mail["Message-ID"] = message_id
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: out-of-office programs stay silent
    mail.set_content(_text(invoice, provider))
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


def _address(name: str, email: str) -> Address:
    name = _one_line(name)
    try:
        if email.isascii():
            return Address(name, addr_spec=email)
        local, _, domain = email.rpartition("@")  # the parser knows ASCII only (RFC 6531 came later)
        return Address(name, username=local, domain=domain)
    except (ValueError, IndexError, MessageError) as error:  # it has all three for what it cannot read
        raise BadAddress.about(name, email, str(error) or type(error).__name__) from error


def _one_line(text: str) -> str:
    """A line break in a name would start a header of its own; the email package refuses it."""
    return " ".join(text.split())

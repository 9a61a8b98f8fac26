"""The parts that every mail has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from jobbridge.handlers.mailing.errors import BadAddress
from jobbridge.handlers.mailing.recipients import Recipient
from jobbridge.handlers.providers import Provider


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """What a mail says about itself.

    Attributes:
        sender: The address that it comes from.
        message_id: The same in each attempt, so that a mail can be found in the mail server's log.
    """

    provider: Provider
    recipient: Recipient
    sender: str
    message_id: str
    sent_at: datetime


def compose(envelope: Envelope, *, subject: str, text: str) -> EmailMessage:
    """Write a mail of the provider's.

    Raises:
        BadAddress: The recipient's, the sender's or the provider's address is none.
    """
    provider, recipient = envelope.provider, envelope.recipient
    mail = EmailMessage()
    mail["From"] = _address(provider.name, envelope.sender)
    mail["To"] = _address(recipient.name, recipient.email)
    mail["Reply-To"] = _address(provider.name, provider.email)
    mail["Subject"] = one_line(subject)
    mail["Date"] = format_datetime(envelope.sent_at)
    mail["Message-ID"] = envelope.message_id
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: out-of-office programs stay silent
    mail.set_content(text)
    return mail


def one_line(text: str) -> str:
    """A line break in a name would start a header of its own; the email package refuses it."""
    return " ".join(text.split())


def _address(name: str, email: str) -> Address:
    name = one_line(name)
    try:
        if email.isascii():
            return Address(name, addr_spec=email)
        local, _, domain = email.rpartition("@")  # the parser knows ASCII only (RFC 6531 came later)
        return Address(name, username=local, domain=domain)
    except (ValueError, IndexError, MessageError) as error:  # it has all three for what it cannot read
        raise BadAddress.about(name, email, str(error) or type(error).__name__) from error

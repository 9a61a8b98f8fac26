"""What goes wrong with a mail, and which of it another attempt can cure.

Refusal
├── NoRecipient            nobody to mail it to
└── BadAddress             what should be an address is none
MailError
├── MailServerUnavailable  cannot be reached, or lost: nothing was sent; later may work
├── MailDeferred           the server says "not now" to this mail; later may work
├── MailRefused            the server says "never" to this mail
└── MailUncertain          the connection was lost after the mail had gone out, before the server's answer
"""

from __future__ import annotations

from typing import Self

from jobbridge.errors import JobBridgeError
from jobbridge.handlers.errors import Refusal


class NoRecipient(Refusal):
    """Nobody to mail it to."""

    hint = "Give the client an active billing contact with an e-mail, a billing e-mail, or a location with an e-mail."

    @classmethod
    def about(cls, client_id: str) -> Self:
        return cls(
            f"Client {client_id!r} has no e-mail address: no contact's, no billing e-mail, no location's."
        )


class BadAddress(Refusal):
    """What should be an e-mail address is none."""

    hint = "Correct the e-mail address."

    @classmethod
    def about(cls, owner: str, address: str, reason: str) -> Self:
        return cls(f"{address!r}, of {owner}, is no e-mail address: {reason}.")


class MailError(JobBridgeError):
    """One mail was not sent, or not certainly."""


class MailServerUnavailable(MailError):
    """The mail server cannot be reached, or refuses us. Nothing was sent; later may work."""

    hint = "Check SMTP_URL, and that the mail server runs and accepts its user."


class MailDeferred(MailError):
    """The server says "not now" to this mail."""

    hint = "Wait: the mail server asks for another attempt later."


class MailRefused(MailError):
    """The server says "never" to this mail."""

    hint = "Correct the address, or ask whoever runs the mail server."


class MailUncertain(MailError):
    """The mail had gone out when the connection, or the process, was lost: it may have been delivered."""

    hint = "Look for the Message-ID in the mail server's log; if it was not sent, start a new job for it."

    @classmethod
    def about(cls, recipient: str, message_id: str) -> Self:
        return cls(
            f"The mail {message_id} to {recipient} may have been sent: its attempt ended before the server's answer."
        )

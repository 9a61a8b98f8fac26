"""What goes wrong with invoices, and which of it another attempt can cure.

Refusal                    never: somebody must correct the books
├── UnknownClient          no such client in this tenant
├── UnknownProvider        the tenant has no letterhead
├── UnknownInvoice         no such invoice in this tenant
├── WindowAlreadyBilled    an invoice covers some of these days
├── NoBillingAddress       nowhere to address it to
├── NoRate                 a line, or time worked, has no price
├── NoTaxRate              the client's region has no rate for a service
├── UnapprovedTime         time in the window still waits for approval
├── NoRecipient            nobody to mail it to
└── RenderingFailed        the PDF cannot be made of this invoice
MailError
├── MailServerUnavailable  cannot be reached, or lost: nothing was sent; later may work
├── MailDeferred           the server says "not now" to this mail; later may work
├── MailRefused            the server says "never" to this mail
└── MailUncertain          the connection was lost after the mail had gone out, before the server's answer
InvoicesNotMailed          some were not mailed; another attempt may cure it
└── InvoicesCannotBeMailed it cannot
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from jobbridge.errors import JobBridgeError
from jobbridge.handlers.invoicing.models import Period


class Refusal(JobBridgeError):
    """The books do not allow it."""


class UnknownClient(Refusal):
    """No such client in this tenant."""

    def __init__(self, client_id: str) -> None:
        super().__init__(
            f"There is no client {client_id!r} in this tenant.",
            hint="Check client_id, and the tenant of the job.",
        )
        self.client_id = client_id


class UnknownProvider(Refusal):
    """The tenant has no letterhead."""

    def __init__(self, tenant: str) -> None:
        super().__init__(
            f"Tenant {tenant!r} has no row in psa.providers, so an invoice would have no sender.",
            hint="Add the provider's name, address and bank account, or import the data set for this tenant.",
        )
        self.tenant = tenant


class UnknownInvoice(Refusal):
    """No such invoice in this tenant."""

    def __init__(self, invoice_ids: Sequence[UUID]) -> None:
        super().__init__(
            f"There is no invoice {', '.join(map(str, invoice_ids))} in this tenant.",
            hint="Check invoice_ids, and the tenant of the job.",
        )
        self.invoice_ids = tuple(invoice_ids)


class WindowAlreadyBilled(Refusal):
    """An invoice covers some of these days."""

    def __init__(self, client_id: str, window: Period, number: str, billed: Period) -> None:
        super().__init__(
            f"Client {client_id!r} is already billed for days of {window}: invoice {number} covers {billed}.",
            hint=f"Choose a window outside {billed}, or void invoice {number} first.",
        )
        self.client_id = client_id
        self.number = number


class NoBillingAddress(Refusal):
    """Nowhere to address it to."""

    def __init__(self, client_id: str, name: str) -> None:
        super().__init__(
            f"Client {client_id!r} ({name}) has no billing address.",
            hint="Mark one of the client's locations as billing or default, with street, postal code and city.",
        )
        self.client_id = client_id


class NoRate(Refusal):
    """A line, or time worked, has no price."""

    def __init__(self, client_id: str, what: str, *, hint: str) -> None:
        super().__init__(f"Client {client_id!r}: {what} has no rate.", hint=hint)
        self.client_id = client_id


class NoTaxRate(Refusal):
    """The client's region has no rate for a service."""

    def __init__(self, client_id: str, region: str, tax_code: str) -> None:
        super().__init__(
            f"Client {client_id!r}: tax region {region!r} has no {tax_code!r} rate at the end of the window.",
            hint="Add the rate to psa.tax_rates; a rate of 0 says that no tax is due.",
        )
        self.client_id = client_id


class UnapprovedTime(Refusal):
    """Time in the window still waits for approval."""

    def __init__(self, client_id: str, entry_ids: Sequence[str]) -> None:
        shown = ", ".join(entry_ids[:5]) + (", …" if len(entry_ids) > 5 else "")
        super().__init__(
            f"Client {client_id!r} has {len(entry_ids)} time entries in the window that are not approved: {shown}.",
            hint="Approve or reject them, then bill again.",
        )
        self.client_id = client_id
        self.entry_ids = tuple(entry_ids)


class NoRecipient(Refusal):
    """Nobody to mail it to."""

    def __init__(self, client_id: str) -> None:
        super().__init__(
            f"Client {client_id!r} has no e-mail address: no active billing contact with one, no billing e-mail, "
            "no location e-mail.",
            hint="Give the client a billing contact or a billing e-mail.",
        )
        self.client_id = client_id


class BadAddress(Refusal):
    """What should be an e-mail address is none."""

    def __init__(self, owner: str, address: str, reason: str) -> None:
        super().__init__(
            f"{address!r} is no e-mail address: {reason}.", hint=f"Correct the address of {owner}."
        )
        self.address = address


class RenderingFailed(Refusal):
    """The PDF cannot be made of this invoice."""

    def __init__(self, invoice_id: UUID, reason: str) -> None:
        super().__init__(
            f"Invoice {invoice_id} cannot be rendered: {reason}.",
            hint="Look for a line whose text is longer than a page, and report the rest with the traceback.",
        )
        self.invoice_id = invoice_id


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

    def __init__(self, recipient: str, message_id: str) -> None:
        super().__init__(
            f"The mail {message_id} to {recipient} may have been sent: the attempt ended before the server's answer.",
            hint="Look for the Message-ID in the mail server's log; if it was not sent, start a new job for it.",
        )
        self.recipient = recipient
        self.message_id = message_id


class InvoicesNotMailed(JobBridgeError):
    """Some invoices were not mailed, all others were. Another attempt mails the missing ones only."""

    hint = "Read the reason of each; the invoices that are not named were mailed."

    def __init__(self, reasons: Mapping[str, str], *, of: int) -> None:
        named = "; ".join(f"{number}: {reason}" for number, reason in reasons.items())
        super().__init__(f"{len(reasons)} of {of} invoices were not mailed. {named}")
        self.reasons = dict(reasons)


class InvoicesCannotBeMailed(InvoicesNotMailed):
    """As its base, and another attempt would not change it."""

"""What goes wrong with invoices, and which of it another attempt can cure.

Refusal                    never: somebody must correct the books
├── UnknownClient          no such client in this tenant
├── UnknownInvoice         no such invoice in this tenant
├── WindowAlreadyBilled    an invoice covers some of these days
├── NoBillingAddress       nowhere to address it to
├── NoRate                 a line, or time worked, has no price
├── NoTaxRate              the client's region has no rate for a service
├── UnapprovedTime         time in the window still waits for approval
└── RenderingFailed        the PDF cannot be made of this invoice
InvoicesNotMailed          some were not mailed; another attempt may cure it
└── InvoicesCannotBeMailed it cannot

Each is made by its `about`, and can be made of its message alone too: a result backend that speaks JSON carries only
the class and the message of an error (celery 5.7, backends/base.py, `exception_to_python`). So hints belong to classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self
from uuid import UUID

from jobbridge.handlers.errors import PartlyFailed, Refusal
from jobbridge.handlers.invoicing.models import Period


class UnknownClient(Refusal):
    """No such client in this tenant."""

    hint = "Check client_id, and the tenant of the job."

    @classmethod
    def about(cls, client_id: str) -> Self:
        return cls(f"There is no client {client_id!r} in this tenant.")


class UnknownInvoice(Refusal):
    """No such invoice in this tenant."""

    hint = "Check invoice_ids, and the tenant of the job."

    @classmethod
    def about(cls, invoice_ids: Sequence[UUID]) -> Self:
        return cls(f"There is no invoice {', '.join(map(str, invoice_ids))} in this tenant.")


class WindowAlreadyBilled(Refusal):
    """An invoice covers some of these days."""

    hint = "Choose a window outside the days that are billed, or void that invoice first."

    @classmethod
    def about(cls, client_id: str, window: Period, number: str, billed: Period) -> Self:
        return cls(
            f"Client {client_id!r} is already billed for days of {window}: invoice {number} covers {billed}."
        )


class NoBillingAddress(Refusal):
    """Nowhere to address it to."""

    hint = "Mark one of the client's locations as billing or default, with street, postal code and city."

    @classmethod
    def about(cls, client_id: str, name: str) -> Self:
        return cls(f"Client {client_id!r} ({name}) has no billing address.")


class NoRate(Refusal):
    """A line, or time worked, has no price."""

    hint = (
        "Set a rate on the contract line or a default rate on its service. Time needs an hourly or bucket line of its "
        "service in a contract of that day, or must be marked as not billable."
    )

    @classmethod
    def about(cls, client_id: str, what: str) -> Self:
        return cls(f"Client {client_id!r}: {what} has no rate.")


class NoTaxRate(Refusal):
    """The client's region has no rate for a service."""

    hint = "Add the rate to psa.tax_rates; a rate of 0 says that no tax is due."

    @classmethod
    def about(cls, client_id: str, region: str, tax_code: str) -> Self:
        return cls(
            f"Client {client_id!r}: tax region {region!r} has no {tax_code!r} rate at the end of the window."
        )


class UnapprovedTime(Refusal):
    """Time in the window still waits for approval."""

    hint = "Approve or reject the time entries, then bill again."

    @classmethod
    def about(cls, client_id: str, entry_ids: Sequence[str]) -> Self:
        shown = ", ".join(entry_ids[:5]) + (", …" if len(entry_ids) > 5 else "")
        counted = "1 time entry" if len(entry_ids) == 1 else f"{len(entry_ids)} time entries"
        return cls(f"Client {client_id!r}, in the window: {counted} not approved: {shown}.")


class RenderingFailed(Refusal):
    """The PDF cannot be made of this invoice."""

    hint = "Look for a line whose text is longer than a page; the traceback says more."

    @classmethod
    def about(cls, number: str, reason: str) -> Self:
        return cls(f"Invoice {number} cannot be rendered: {reason}.")


class InvoicesNotMailed(PartlyFailed):
    """Some invoices were not mailed, all others were. Another attempt mails the missing ones only."""

    hint = "Read the reason of each; the invoices that are not named were mailed."


class InvoicesCannotBeMailed(InvoicesNotMailed):
    """As its base, and another attempt would not change it."""

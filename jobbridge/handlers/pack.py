"""All handlers of the pack: importing this module declares them. `jobbridge.bootstrap` has the app include it."""

from __future__ import annotations

from jobbridge.handlers.invoicing.emailing import invoice_email
from jobbridge.handlers.invoicing.generate import generate_invoice
from jobbridge.handlers.invoicing.zipping import invoice_zip

__all__ = ["generate_invoice", "invoice_email", "invoice_zip"]

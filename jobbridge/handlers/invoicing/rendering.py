"""An invoice's PDF: rendered once, whichever job asks first."""

from __future__ import annotations

from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded

from jobbridge import JobBridgeError
from jobbridge.handlers.documents import INVOICE_PDF, Document, NewDocument, keep_document, pdf_of_invoice
from jobbridge.handlers.invoicing.archive import pdf_name
from jobbridge.handlers.invoicing.errors import RenderingFailed
from jobbridge.handlers.invoicing.invoices import read_invoice
from jobbridge.handlers.invoicing.models import Invoice
from jobbridge.handlers.invoicing.pdf import MEDIA_TYPE, render_invoice
from jobbridge.handlers.sql import Transaction


def ensure_pdf(transaction: Transaction, tenant: str, job_id: str, invoice_id: UUID) -> Document:
    """Give the invoice's PDF, rendering it if it is missing. No transaction is open while it is rendered.

    Raises:
        UnknownInvoice: No such invoice in this tenant.
        RenderingFailed: The PDF cannot be made of this invoice.
    """
    with transaction() as connection:
        existing = pdf_of_invoice(connection, tenant, invoice_id)
        if existing is not None:
            return existing
        invoice = read_invoice(connection, tenant, invoice_id)
    new = NewDocument(
        kind=INVOICE_PDF,
        name=pdf_name(invoice.head),
        media_type=MEDIA_TYPE,
        content=_rendered(invoice),
        client_id=invoice.head.client_id,
        invoice_id=invoice_id,
        job_id=job_id,
    )
    with transaction() as connection:
        return keep_document(connection, tenant, new)


def _rendered(invoice: Invoice) -> bytes:
    try:
        return render_invoice(invoice)
    except (SoftTimeLimitExceeded, JobBridgeError):
        raise
    except Exception as error:  # whatever reportlab raises is about this one invoice
        raise RenderingFailed.about(invoice.head.number, f"{type(error).__name__}: {error}") from error

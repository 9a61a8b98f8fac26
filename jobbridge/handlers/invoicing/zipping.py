"""`invoice_zip`: render each invoice, put all into one archive, keep it as a document.

One step per invoice, one for the archive. Step by step, what if the process dies in between, or the job comes twice?

- Dies while an invoice is rendered: nothing of it is kept (it is in memory, there are no temporary files); the next
  attempt renders that one, and finds the earlier ones.
- Dies after a PDF is kept, before its step is: the next attempt runs the step again, which finds the PDF: an
  invoice has one PDF (unique index), whichever job made it.
- Dies while the archive is built, or before it is kept: it is built again, from the kept PDFs.
- Dies after the archive is kept: a job has one archive (unique index); the next attempt finds it.
- The same job runs twice at once: both render the same bytes, the second insert gives way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from jobbridge import JobContext, RetryPolicy, job
from jobbridge.handlers.documents import (
    INVOICE_ARCHIVE,
    Document,
    NewDocument,
    archive_of_job,
    content_of,
    keep_document,
)
from jobbridge.handlers.errors import Refusal
from jobbridge.handlers.invoicing.archive import (
    MEDIA_TYPE,
    ArchiveFile,
    archive_name,
    build_archive,
    only_client,
)
from jobbridge.handlers.invoicing.invoices import heads_of
from jobbridge.handlers.invoicing.models import InvoiceHead, ZipInvoices
from jobbridge.handlers.invoicing.rendering import ensure_pdf
from jobbridge.handlers.sql import Transaction


@job(
    "invoice_zip",
    retry=RetryPolicy(non_retryable=(Refusal,)),
    timeout=timedelta(minutes=10),
    tenant_required=True,
)
def invoice_zip(ctx: JobContext, data: ZipInvoices) -> dict[str, Any]:
    """Render invoices to PDF and put them into one archive."""
    with ctx.transaction() as connection:
        invoices = heads_of(connection, ctx.tenant_id, data.invoice_ids)
    steps = len(invoices) + 1
    for done, invoice in enumerate(invoices):
        ctx.check_cancelled()
        ctx.progress(done, steps, f"rendering {invoice.number}")
        with ctx.step("render", key=str(invoice.invoice_id)) as step:
            if not step.is_done:
                document = ensure_pdf(ctx.transaction, ctx.tenant_id, ctx.job_id, invoice.invoice_id)
                step.result = {"document_id": str(document.document_id), "number": invoice.number}
    ctx.check_cancelled()
    ctx.progress(len(invoices), steps, f"zipping {len(invoices)} invoices")
    with ctx.step("archive", key="archive") as step:
        if not step.is_done:
            archive = ensure_archive(ctx.transaction, ctx.tenant_id, ctx.job_id, invoices)
            step.result = described(archive, len(invoices))
    ctx.progress(steps, steps, "archive is ready")
    result: dict[str, Any] = step.result
    return result


def ensure_archive(
    transaction: Transaction, tenant: str, job_id: str, invoices: Sequence[InvoiceHead]
) -> Document:
    """Give the job's archive of these invoices, building it if it is missing."""
    with transaction() as connection:
        existing = archive_of_job(connection, tenant, job_id)
    if existing is not None:
        return existing
    new = NewDocument(
        kind=INVOICE_ARCHIVE,
        name=archive_name(invoices),
        media_type=MEDIA_TYPE,
        content=build_archive(_files(transaction, tenant, job_id, invoices)),
        client_id=only_client(invoices),
        invoice_id=None,
        job_id=job_id,
    )
    with transaction() as connection:
        return keep_document(connection, tenant, new)


def _files(
    transaction: Transaction, tenant: str, job_id: str, invoices: Sequence[InvoiceHead]
) -> Iterator[ArchiveFile]:
    """Read the PDFs one by one, so that memory holds the archive and one of them."""
    for invoice in invoices:
        # It is there, unless somebody deleted it after its step was done.
        pdf = ensure_pdf(transaction, tenant, job_id, invoice.invoice_id)
        with transaction() as connection:
            content = content_of(connection, tenant, pdf.document_id)
        yield ArchiveFile(name=pdf.name, written_on=invoice.issued_on, content=content)


def described(archive: Document, invoices: int) -> dict[str, Any]:
    """Give the job's result."""
    return {
        "document_id": str(archive.document_id),
        "name": archive.name,
        "sha256": archive.sha256,
        "size": archive.size,
        "client_id": archive.client_id,
        "invoices": invoices,
    }

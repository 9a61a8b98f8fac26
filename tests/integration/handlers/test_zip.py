"""The documents of `invoice_zip` on real tables."""

import re
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest
from pypdf import PdfReader

from jobbridge.handlers.documents import Document, content_of, documents_of
from jobbridge.handlers.invoicing.errors import RenderingFailed, UnknownInvoice
from jobbridge.handlers.invoicing.invoices import heads_of
from jobbridge.handlers.invoicing.models import InvoiceHead
from jobbridge.handlers.invoicing.rendering import ensure_pdf
from jobbridge.handlers.invoicing.zipping import ensure_archive
from jobbridge.handlers.money import amount_text
from tests.books import Books

#: Whose books there are: see conftest.py.
TENANTS = ("t1", "t2")


def content(books: Books, document: Document, tenant: str = "t1") -> bytes:
    with books.transaction() as connection:
        return content_of(connection, tenant, document.document_id)


def archive_of(
    books: Books, invoices: Sequence[InvoiceHead], job: str = "zip", tenant: str = "t1"
) -> Document:
    return ensure_archive(books.transaction, tenant, job, invoices)


def test_the_totals_in_each_pdf_are_those_of_the_books(books: Books) -> None:
    for invoice in books.bill_all():
        pdf = ensure_pdf(books.transaction, "t1", "zip", invoice.invoice_id)
        text = "\n".join(page.extract_text() for page in PdfReader(BytesIO(content(books, pdf))).pages)

        assert re.search(rf"Total EUR\s+{re.escape(amount_text(invoice.total))}", text)
        assert re.search(rf"Subtotal\s+{re.escape(amount_text(invoice.subtotal))}", text)
        assert invoice.number in text


def test_the_archive_holds_each_pdf_in_the_order_of_numbers(books: Books) -> None:
    invoices = books.bill_all()

    archive = archive_of(books, invoices)

    with zipfile.ZipFile(BytesIO(content(books, archive))) as opened:
        names = opened.namelist()
        assert names[3] == "INV-2026-00004 Bauer & Söhne Maschinenbau GmbH.pdf"
        assert [name[:14] for name in names] == [invoice.number for invoice in invoices]
        assert all(opened.read(name).startswith(b"%PDF-") for name in names)
    assert archive.client_id is None


def test_the_archive_of_one_clients_invoices_is_linked_to_the_client(books: Books) -> None:
    assert archive_of(books, [books.bill("lakeside")]).client_id == "lakeside"


def test_the_same_job_again_gives_the_same_archive_and_renders_nothing(books: Books) -> None:
    invoices = books.bill_all()
    first = archive_of(books, invoices)
    books.run("UPDATE psa.invoices SET bill_to = '{changed}'")  # would show if it were rendered again

    assert archive_of(books, invoices) == first
    assert archive_of(books, invoices, job="another").sha256 == first.sha256
    assert books.value("SELECT count(*) FROM psa.documents WHERE kind = 'invoice_pdf'") == len(invoices)


def test_only_what_is_missing_is_rendered_again(books: Books) -> None:
    invoices = books.bill_all()
    first = archive_of(books, invoices)
    kept = "SELECT max(created_at) FROM psa.documents WHERE invoice_id <> %s"
    before = books.value(kept, invoices[0].invoice_id)
    books.run(
        "DELETE FROM psa.documents WHERE invoice_id = %s OR kind = 'invoice_archive'", invoices[0].invoice_id
    )

    again = archive_of(books, invoices)

    assert again.sha256 == first.sha256
    assert books.value(kept + " AND kind = 'invoice_pdf'", invoices[0].invoice_id) <= before


def test_all_who_ask_at_once_get_one_document(books: Books) -> None:
    invoices = books.bill_all()

    with ThreadPoolExecutor(4) as pool:
        archives = list(pool.map(lambda _: archive_of(books, invoices), range(4)))

    assert len({archive.document_id for archive in archives}) == 1
    assert books.value("SELECT count(*) FROM psa.documents") == len(invoices) + 1


def test_the_same_books_give_the_same_bytes_for_each_tenant(books: Books) -> None:
    archives = [
        archive_of(books, books.bill_all(tenant=tenant), job=f"zip-{tenant}", tenant=tenant)
        for tenant in ("t1", "t2")
    ]

    assert archives[0].sha256 == archives[1].sha256
    assert archives[0].document_id != archives[1].document_id


def test_invoices_and_documents_of_another_tenant_do_not_exist(books: Books) -> None:
    theirs = books.bill("northwind", tenant="t2")
    pdf = ensure_pdf(books.transaction, "t2", "zip", theirs.invoice_id)

    with books.transaction() as connection:
        with pytest.raises(UnknownInvoice, match=str(theirs.invoice_id)):
            heads_of(connection, "t1", [theirs.invoice_id])
        with pytest.raises(LookupError, match=str(pdf.document_id)):
            content_of(connection, "t1", pdf.document_id)
        assert list(documents_of(connection, "t1")) == []


def test_an_invoice_that_cannot_be_rendered_is_named(books: Books) -> None:
    invoice = books.bill("northwind")
    endless = "long " * 20_000  # a table's row cannot be split over pages
    books.run("UPDATE psa.invoice_lines SET description = %s WHERE position = 1", endless)

    with pytest.raises(RenderingFailed, match=invoice.number):
        ensure_pdf(books.transaction, "t1", "zip", invoice.invoice_id)
    assert books.value("SELECT count(*) FROM psa.documents") == 0

import zipfile
from datetime import date
from io import BytesIO

import pytest

from jobbridge.handlers.invoicing.archive import (
    ArchiveFile,
    archive_name,
    build_archive,
    only_client,
    pdf_name,
)
from jobbridge.handlers.invoicing.models import InvoiceHead
from tests.books import invoice

FILES = [
    ArchiveFile(name="Łódź.pdf", written_on=date(2026, 10, 31), content=b"one" * 1000),
    ArchiveFile(name="two.pdf", written_on=date(2026, 9, 30), content=b"two"),
]


def head(number: str, client_id: str = "acme", **changes: str) -> InvoiceHead:
    return invoice(number=number, client_id=client_id, **changes).head


def test_files_come_out_as_they_went_in_dated_by_their_documents() -> None:
    with zipfile.ZipFile(BytesIO(build_archive(FILES))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {f.name: f.content for f in FILES}
        assert [info.date_time[:3] for info in archive.infolist()] == [(2026, 10, 31), (2026, 9, 30)]


def test_the_same_files_make_the_same_archive() -> None:
    assert build_archive(FILES) == build_archive(iter(FILES))


@pytest.mark.parametrize(
    ("client", "name"),
    [
        ("Acme Ltd", "INV-1 Acme Ltd.pdf"),
        ("A/B: C? <D>", "INV-1 A B C D.pdf"),
        ("../../etc/passwd", "INV-1 .. .. etc passwd.pdf"),
        ("Bauer & Söhne", "INV-1 Bauer & Söhne.pdf"),
        ("Dots Inc.", "INV-1 Dots Inc.pdf"),
    ],
)
def test_a_file_is_named_after_number_and_client_as_far_as_file_systems_allow(client: str, name: str) -> None:
    assert pdf_name(head("INV-1", client_name=client)) == name


def test_an_archive_is_named_after_its_first_and_last_invoice() -> None:
    assert archive_name([head("INV-1"), head("INV-2"), head("INV-5")]) == "Invoices INV-1 to INV-5.zip"
    assert archive_name([head("INV-1")]) == "Invoice INV-1.zip"


def test_an_archive_belongs_to_a_client_only_if_all_its_invoices_do() -> None:
    assert only_client([head("INV-1"), head("INV-2")]) == "acme"
    assert only_client([head("INV-1"), head("INV-2", "other")]) is None

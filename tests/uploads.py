"""Uploads for tests of `asset_import`, and an import as a job would run it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from openpyxl import Workbook

from jobbridge.handlers.assets.importing import Import, OnProgress
from jobbridge.handlers.assets.models import ImportAssets
from jobbridge.handlers.assets.outcomes import Progress
from jobbridge.handlers.files import ASSET_UPLOAD, StoredFile, keep_file, open_file
from jobbridge.handlers.sql import Transaction
from tests.books import Books

HEADER = ("name", "client_id", "serial_number", "asset_tag", "mac_address", "host_name")


def as_csv(rows: Iterable[Sequence[str]], header: Sequence[str] = HEADER, delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def as_workbook(
    rows: Iterable[Sequence[Any]], header: Sequence[str] = HEADER, sheet: str = "Devices"
) -> bytes:
    book = Workbook(write_only=True)
    for title, lines in ((sheet, [header, *rows]), ("Notes", [["nothing"]])):
        page = book.create_sheet(title)
        for line in lines:
            page.append(line)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def upload(books: Books, content: bytes, *, name: str = "devices.csv", tenant: str = "") -> StoredFile:
    with books.transaction() as connection:
        return keep_file(
            connection,
            tenant or books.tenant,
            kind=ASSET_UPLOAD,
            name=name,
            media_type="application/octet-stream",
            content=[content],
        )


def run_import(
    books: Books,
    file: StoredFile,
    *,
    job: str = "import",
    tenant: str = "",
    transaction: Transaction | None = None,
    on_progress: OnProgress = lambda share, progress: None,
    batch: int = 500,
    **data: Any,
) -> tuple[Progress, StoredFile | None]:
    """Import as one attempt of the job would."""
    task = Import(
        transaction=transaction or books.transaction,
        tenant=tenant or books.tenant,
        job_id=job,
        data=ImportAssets(file_id=file.file_id, **data),
        batch=batch,
    )
    task.import_rows(task.upload(), on_progress)
    return task.finish(file)


def content_of_file(books: Books, file: StoredFile, tenant: str = "") -> bytes:
    with open_file(books.transaction, tenant or books.tenant, file) as opened:
        return opened.read()

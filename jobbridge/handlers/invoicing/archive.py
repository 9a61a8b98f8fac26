"""Invoices as one ZIP archive, built in memory: its bytes depend on its files alone."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from io import BytesIO

from jobbridge.handlers.invoicing.models import InvoiceHead

MEDIA_TYPE = "application/zip"

# What Windows, macOS and Linux all accept in a file's name; letters of any script are fine.
_NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveFile:
    name: str
    written_on: date
    content: bytes


def build_archive(files: Iterable[ArchiveFile]) -> bytes:
    """Give a ZIP of these files, each dated by its document instead of by the clock."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            day = file.written_on
            info = zipfile.ZipInfo(file.name, date_time=(day.year, day.month, day.day, 0, 0, 0))
            info.create_system = 3  # Unix, wherever it is built: else Windows builds other bytes
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, file.content)
    return buffer.getvalue()


def pdf_name(invoice: InvoiceHead) -> str:
    """Give `INV-2026-00001 Northwind Traders Ltd.pdf`; the number makes it unique."""
    return _file_name(f"{invoice.number} {invoice.client_name}") + ".pdf"


def archive_name(invoices: Sequence[InvoiceHead]) -> str:
    """Give `Invoices INV-2026-00001 to INV-2026-00006.zip`; the invoices come in the order of their numbers."""
    first, last = invoices[0].number, invoices[-1].number
    numbers = first if first == last else f"{first} to {last}"
    return _file_name(f"Invoice{'s' if first != last else ''} {numbers}") + ".zip"


def only_client(invoices: Iterable[InvoiceHead]) -> str | None:
    """Give the client that all of them are of, or None."""
    clients = {invoice.client_id for invoice in invoices}
    return clients.pop() if len(clients) == 1 else None


def _file_name(text: str) -> str:
    words = " ".join(_NOT_IN_NAMES.sub(" ", text).split())
    # 80: at three bytes a letter, below the 255 of most file systems. And Windows drops a trailing dot or space.
    return words[:80].strip(" .")

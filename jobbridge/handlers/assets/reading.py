"""The rows of an uploaded file, CSV or XLSX, one after another: however long it is, one row is in memory.

What is in a workbook's shared strings is the exception: openpyxl holds them all, because any cell may refer to any.
"""

from __future__ import annotations

import codecs
import csv
import io
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, BinaryIO, Protocol
from xml.etree.ElementTree import ParseError

from jobbridge.handlers.assets.errors import FileUnreadable
from jobbridge.handlers.assets.models import ImportAssets, Row
from jobbridge.handlers.extras import required
from jobbridge.handlers.files import StoredFile

#: Of a workbook, unpacked: a few kilobytes can be packed that unpack to gigabytes.
LARGEST_WORKBOOK = 500 * 1024 * 1024

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE = 64 * 1024
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Table(Protocol):
    """An open file with rows; the first one holds the column names."""

    def rows(self) -> Iterator[Row]:
        """Give the rows that are not empty.

        Raises:
            FileUnreadable: From here on it cannot be read.
        """

    def share_read(self) -> float:
        """Give how much of it has been read, from 0 to 1."""


def open_table(file: StoredFile, content: BinaryIO, data: ImportAssets) -> Table:
    """Open a file; its content says whether it is a workbook, whatever its name.

    Raises:
        FileUnreadable: It is empty, or of a format that is not read.
    """
    start = content.read(4)
    content.seek(0)
    if not start:
        raise FileUnreadable.about(file.name, "it is empty")
    if start == _OLD_EXCEL:
        raise FileUnreadable.about(file.name, "it is an .xls workbook of the format before 2007")
    if start == b"PK\x03\x04":
        return Workbook(file, content, data.sheet)
    mark = next((mark for mark in _BYTE_ORDER_MARKS if start.startswith(mark)), None)
    encoding = data.encoding if mark is None else _BYTE_ORDER_MARKS[mark]
    return CsvFile(file, content, encoding, data.delimiter)


class CsvFile:
    """RFC 4180, with any of four delimiters. A row that is quoted wrongly is one bad row, not a bad file."""

    def __init__(self, file: StoredFile, content: BinaryIO, encoding: str, delimiter: str | None) -> None:
        self._file, self._content, self._encoding = file, content, encoding
        self._delimiter = delimiter or self._likely_delimiter()

    def rows(self) -> Iterator[Row]:
        lines = io.TextIOWrapper(self._content, encoding=self._encoding, newline="")
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        number = 0
        while True:
            number, first_line = number + 1, reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                lines.detach()
                return
            except csv.Error as error:
                where = (
                    f"line {first_line}"
                    if reader.line_num <= first_line
                    else f"lines {first_line} to {reader.line_num}"
                )
                yield Row(number=number, cells=(), problem=f"{where} cannot be taken apart: {error}")
                continue
            except UnicodeError as error:
                reason = f"after row {number - 1} there is text that is not {self._encoding}: {error}"
                raise FileUnreadable.about(self._file.name, reason) from None
            if any(cell.strip() for cell in cells):
                yield Row(number=number, cells=tuple(cells))

    def share_read(self) -> float:
        return self._content.tell() / max(1, self._file.size)

    def _likely_delimiter(self) -> str:
        """Give the delimiter that takes the first row apart into the most cells."""
        sample = self._content.read(_SAMPLE)
        self._content.seek(0)
        lines = sample.decode(self._encoding, errors="replace").splitlines()
        first = next((line for line in lines if line.strip()), "")
        return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([first], delimiter=delimiter))))


class Workbook:
    """One sheet of an XLSX file."""

    def __init__(self, file: StoredFile, content: BinaryIO, sheet: str | None) -> None:
        self._file = file
        self._refuse_bombs(content)
        library = required("openpyxl", "Reading a workbook")
        try:
            book = library.load_workbook(content, read_only=True, data_only=True)
        except (*_DAMAGED, library.utils.exceptions.InvalidFileException) as error:
            raise FileUnreadable.about(file.name, f"the workbook is damaged: {error}") from None
        names = [one.title for one in book.worksheets]
        if not names or (sheet is not None and sheet not in names):
            shown = ", ".join(map(repr, names)) or "none"
            raise FileUnreadable.about(file.name, f"there is no sheet {sheet!r} among {shown}")
        self._sheet = book[sheet or names[0]]
        self._row_count = self._sheet.max_row or 0  # what the file claims; good enough for a progress bar
        self._sheet.reset_dimensions()  # some programs write a wrong size, and what lies beyond would be lost
        self._read = 0

    def rows(self) -> Iterator[Row]:
        rows = self._sheet.iter_rows(values_only=True)
        while True:
            try:
                values = next(rows, None)
            except _DAMAGED as error:
                reason = f"after row {self._read} the workbook is damaged: {error}"
                raise FileUnreadable.about(self._file.name, reason) from None
            if values is None:
                return
            self._read += 1
            cells = tuple(_as_text(value) for value in values)
            if any(cell.strip() for cell in cells):
                yield Row(number=self._read, cells=cells)

    def share_read(self) -> float:
        return min(1.0, self._read / max(1, self._row_count))

    def _refuse_bombs(self, content: BinaryIO) -> None:
        try:
            with zipfile.ZipFile(content) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except zipfile.BadZipFile as error:
            raise FileUnreadable.about(self._file.name, f"the workbook is damaged: {error}") from None
        finally:
            content.seek(0)
        if unpacked > LARGEST_WORKBOOK:
            reason = (
                f"unpacked it has {unpacked:,} bytes, and {LARGEST_WORKBOOK:,} are allowed; save it as CSV"
            )
            raise FileUnreadable.about(self._file.name, reason)


_DAMAGED = (
    zipfile.BadZipFile, ParseError, KeyError, ValueError, TypeError, IndexError, EOFError,
)  # fmt: skip


def _as_text(value: Any) -> str:
    """Give a cell as somebody would have typed it into CSV."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "TRUE" if value else "FALSE"
        case float() if value.is_integer():
            return str(int(value))  # Excel has no whole numbers
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case date():
            return value.isoformat()
        case _:
            return str(value)

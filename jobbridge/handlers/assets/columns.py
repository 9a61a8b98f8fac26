"""From a row of the file to a draft of an asset, or to what is wrong with it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from jobbridge.handlers.assets.errors import UnknownColumn
from jobbridge.handlers.assets.models import (
    AssetField,
    AssetKind,
    DateOrder,
    Draft,
    ImportAssets,
    Invalid,
    Row,
)

LONGEST_TEXT = 200  # characters; notes are longer
LONGEST_NOTES = 4000

# What makers and spreadsheets write where a device has none (DMI tables of mainboards, exports of RMM tools).
_NO_VALUE = {
    "", "-", "--", "0", "n/a", "na", "nil", "none", "null", "unknown", "not available", "not applicable",
    "not specified", "default string", "system serial number", "to be filled by o.e.m.", "chassis serial number",
}  # fmt: skip

_EXCEL_ERRORS = {"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!"}

_DATE_FORMATS = {
    DateOrder.ISO: "%Y/%m/%d",
    DateOrder.DAY_FIRST: "%d/%m/%Y",
    DateOrder.MONTH_FIRST: "%m/%d/%Y",
}
_DATE_EXAMPLES = {
    DateOrder.ISO: "2026-10-31",
    DateOrder.DAY_FIRST: "31/10/2026",
    DateOrder.MONTH_FIRST: "10/31/2026",
}

# RFC 1123; underscores too, which Windows allows.
_HOST_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_MAC_SEPARATORS = re.compile(r"[\s:.\-]")
_MAC = re.compile(r"[0-9a-f]{12}")
_NOT_IN_NAMES = re.compile(r"[\W_]+")


class _Wrong(Exception):
    """What is wrong with one value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which column is read as which field.

    Attributes:
        header: The column names.
        index_of: Field → position.
    """

    header: Sequence[str]
    index_of: Mapping[AssetField, int]

    @classmethod
    def of(cls, header: Sequence[str], mapping: Mapping[AssetField, str]) -> Columns:
        """Find the column of each field: as the mapping says, else the one with the field's own name.

        Raises:
            UnknownColumn: The mapping names a column that is not there, or there twice; or no column is the name.
        """
        names = [cell.strip() for cell in header]
        plain = [_plain(name) for name in names]
        index_of: dict[AssetField, int] = {}
        for field in AssetField:
            wanted = mapping.get(field)
            places = [place for place, name in enumerate(plain) if name and name == _plain(wanted or field)]
            if len(places) > 1:
                raise UnknownColumn.twice(field, wanted or field)
            if places:
                index_of[field] = places[0]
            elif wanted is not None:
                raise UnknownColumn.about(field, wanted, names)
        if AssetField.NAME not in index_of:
            raise UnknownColumn.missing(AssetField.NAME, names)
        return cls(header=names, index_of=index_of)


def read_row(row: Row, columns: Columns, data: ImportAssets, clients: Collection[str]) -> Draft | Invalid:
    """Read one row; all that is wrong with it is told at once.

    Args:
        clients: The clients that there are.
    """
    if row.problem is not None:
        return Invalid(row=row, reason=row.problem)
    if len(row.cells) > len(columns.header) and any(
        cell.strip() for cell in row.cells[len(columns.header) :]
    ):
        return Invalid(
            row=row, reason=f"{len(row.cells)} cells, and {len(columns.header)} columns have a name"
        )
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field, index in columns.index_of.items():
        text = row.cells[index].strip() if index < len(row.cells) else ""
        try:
            values[field] = _READERS.get(field, _text)(_sound(text), data)
        except _Wrong as wrong:
            problems.append(f"{field}: {wrong}")
    problems += _missing(values, problems, data, clients)
    if problems:
        return Invalid(row=row, reason="; ".join(problems))
    return Draft(row=row, **{str(field): value for field, value in values.items()})


def _missing(
    values: dict[str, Any], problems: Sequence[str], data: ImportAssets, clients: Collection[str]
) -> list[str]:
    """Fill in what has a default, and tell what is missing then."""
    found = []
    if AssetField.NAME in values and values[AssetField.NAME] is None:
        found.append("name: it is empty")
    values[AssetField.KIND] = values.get(AssetField.KIND) or AssetKind.OTHER
    client_id = values[AssetField.CLIENT_ID] = values.get(AssetField.CLIENT_ID) or data.client_id
    if client_id is None:
        found.append("client_id: neither the row nor the job says whose it is")
    elif client_id not in clients:
        found.append(f"client_id: there is no client {client_id!r}")
    return found


def is_storable(text: str) -> bool:
    """Tell whether Postgres can hold it."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _plain(name: str) -> str:
    """`Serial number`, `serialNumber` and `SERIAL_NUMBER` are one name."""
    return _NOT_IN_NAMES.sub("", name).casefold()


def _sound(text: str) -> str:
    if "\0" in text:
        raise _Wrong("it holds a NUL character")
    if text in _EXCEL_ERRORS:
        raise _Wrong(f"the cell holds the error {text}")
    if not is_storable(text):
        raise _Wrong("it holds half a character")
    return text


def _text(text: str, data: ImportAssets, longest: int = LONGEST_TEXT) -> str | None:
    if len(text) > longest:
        raise _Wrong(f"{len(text)} characters, and {longest} are allowed")
    return text or None


def _notes(text: str, data: ImportAssets) -> str | None:
    return _text(text, data, LONGEST_NOTES)


def _kind(text: str, data: ImportAssets) -> AssetKind | None:
    if not text:
        return None
    try:
        return AssetKind(re.sub(r"[\s-]+", "_", text.casefold()))
    except ValueError:
        raise _Wrong(f"{text!r} is none of {', '.join(AssetKind)}") from None


def _identifier(text: str, data: ImportAssets) -> str | None:
    """Serial numbers and tags: upper case, without spaces; none where a placeholder stands."""
    if text.casefold() in _NO_VALUE:
        return None
    return _text("".join(text.split()).upper(), data)


def _mac_address(text: str, data: ImportAssets) -> str | None:
    if text.casefold() in _NO_VALUE:
        return None
    digits = _MAC_SEPARATORS.sub("", text).lower()
    if not _MAC.fullmatch(digits):
        raise _Wrong(f"{text!r} is no MAC address: it must have 12 hexadecimal digits")
    if digits in {"0" * 12, "f" * 12}:
        return None  # what adapters without an address report
    return ":".join(digits[place : place + 2] for place in range(0, 12, 2))


def _host_name(text: str, data: ImportAssets) -> str | None:
    if text.casefold() in _NO_VALUE:
        return None
    name = text.lower().rstrip(".")
    if not 1 <= len(name) <= 253 or not all(_HOST_LABEL.fullmatch(label) for label in name.split(".")):
        raise _Wrong(f"{text!r} is no host name")
    return name


def _date(text: str, data: ImportAssets) -> date | None:
    if not text:
        return None
    try:
        # A workbook has real dates, which arrive as ISO, whatever the order of written ones.
        return datetime.fromisoformat(text).date()
    except ValueError:
        pass
    try:
        return datetime.strptime(re.sub(r"[.\-]", "/", text), _DATE_FORMATS[data.date_order]).date()
    except ValueError:
        raise _Wrong(f"{text!r} is no date like {_DATE_EXAMPLES[data.date_order]}") from None


_READERS: Mapping[AssetField, Callable[[str, ImportAssets], Any]] = {
    AssetField.KIND: _kind,
    AssetField.SERIAL_NUMBER: _identifier,
    AssetField.ASSET_TAG: _identifier,
    AssetField.MAC_ADDRESS: _mac_address,
    AssetField.HOST_NAME: _host_name,
    AssetField.PURCHASED_ON: _date,
    AssetField.WARRANTY_ENDS_ON: _date,
    AssetField.NOTES: _notes,
}

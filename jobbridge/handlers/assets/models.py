"""The data of the job, and the words of an import."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.alias_generators import to_snake

from jobbridge.handlers.job_data import JobData


class AssetField(StrEnum):
    """What a column of the file can be read as."""

    NAME = "name"
    CLIENT_ID = "client_id"
    KIND = "kind"
    SERIAL_NUMBER = "serial_number"
    ASSET_TAG = "asset_tag"
    MAC_ADDRESS = "mac_address"
    HOST_NAME = "host_name"
    MANUFACTURER = "manufacturer"
    MODEL = "model"
    LOCATION = "location"
    PURCHASED_ON = "purchased_on"
    WARRANTY_ENDS_ON = "warranty_ends_on"
    NOTES = "notes"


class AssetKind(StrEnum):
    WORKSTATION = "workstation"
    SERVER = "server"
    NETWORK_DEVICE = "network_device"
    MOBILE_DEVICE = "mobile_device"
    PRINTER = "printer"
    OTHER = "other"


class DateOrder(StrEnum):
    ISO = "iso"  # 2026-10-31
    DAY_FIRST = "day_first"  # 31/10/2026, 31.10.2026, 31-10-2026
    MONTH_FIRST = "month_first"  # 10/31/2026


def _snake(name: object) -> object:
    return to_snake(name) if isinstance(name, str) else name


def _known_encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise ValueError(f"no encoding is called {name!r}") from None


class ImportAssets(JobData):
    """Import the assets of an uploaded file.

    Attributes:
        mapping: Field → the column's name in the file's first row. A field that is not named here is read from the
            column of its own name, if there is one.
        client_id: Whose the assets are, where the file does not say.
        sheet: Of a workbook; else its first.
        encoding: Of a CSV file that is not UTF-8.
        delimiter: Of a CSV file; else what its first row suggests.
        name_similarity: From how many percent on two names are the same asset's; None: names are not compared.
    """

    file_id: UUID
    mapping: Mapping[Annotated[AssetField, BeforeValidator(_snake)], str] = Field(default_factory=dict)
    client_id: str | None = None
    sheet: str | None = None
    encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8"
    delimiter: Literal[",", ";", "\t", "|"] | None = None
    date_order: DateOrder = DateOrder.ISO
    name_similarity: int | None = Field(90, ge=50, le=100)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the file.

    Attributes:
        number: As a spreadsheet shows it: the column names are row 1.
        problem: Why it could not be taken apart; None: it was.
    """

    number: int
    cells: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A valid row: an asset that is not there yet, with each value in the spelling that is kept."""

    row: Row
    name: str
    client_id: str
    kind: AssetKind
    serial_number: str | None = None
    asset_tag: str | None = None
    mac_address: str | None = None
    host_name: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    location: str | None = None
    purchased_on: date | None = None
    warranty_ends_on: date | None = None
    notes: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Invalid:
    """A row that cannot be an asset, and why."""

    row: Row
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """An asset that is there, as far as duplicates of it are recognised by.

    Attributes:
        import_row: The row of this very import that made it; None: it was there before.
    """

    asset_id: UUID
    client_id: str
    name: str
    kind: AssetKind
    serial_number: str | None
    asset_tag: str | None
    mac_address: str | None
    host_name: str | None
    import_row: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """A row whose asset is there already.

    Attributes:
        matched_by: The field that says so.
    """

    row: Row
    asset_id: UUID
    matched_by: AssetField
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Created:
    """A row that became an asset."""

    row: Row
    asset_id: UUID


Outcome = Created | Duplicate | Invalid

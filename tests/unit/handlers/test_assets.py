"""How rows of an asset import are read, and how duplicates are told from new ones."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobbridge.handlers.assets.columns import Columns, read_row
from jobbridge.handlers.assets.errors import UnknownColumn
from jobbridge.handlers.assets.matching import Matcher
from jobbridge.handlers.assets.models import (
    AssetField,
    AssetKind,
    Draft,
    ImportAssets,
    Invalid,
    Known,
    Row,
)
from jobbridge.handlers.assets.names import blocks_of, similarity, spelling_of

FILE = "00000000-0000-0000-0000-000000000001"


def read(cells: dict[str, str], **data: Any) -> Draft | Invalid:
    """Read one row of a file that has these columns; client `acme` exists."""
    options = ImportAssets(file_id=UUID(FILE), **{"client_id": "acme", **data})
    columns = Columns.of(list(cells), options.mapping)
    return read_row(Row(number=2, cells=tuple(cells.values())), columns, options, {"acme"})


def draft(**cells: str) -> Draft:
    found = read({"name": "Laptop", **cells})
    assert isinstance(found, Draft), found
    return found


def reason(**cells: str) -> str:
    found = read({"name": "Laptop", **cells})
    assert isinstance(found, Invalid), found
    return found.reason


def known(**values: Any) -> Known:
    defaults: dict[str, Any] = {
        "asset_id": uuid4(),
        "client_id": "acme",
        "name": "Reception printer",
        "kind": AssetKind.OTHER,
        "serial_number": None,
        "asset_tag": None,
        "mac_address": None,
        "host_name": None,
        "import_row": None,
    }
    return Known(**defaults | values)


# -- columns


@pytest.mark.parametrize("name", ["serial_number", "Serial number", "serialNumber", "SERIAL-NUMBER"])
def test_a_column_is_found_by_its_fields_name_in_any_spelling(name: str) -> None:
    columns = Columns.of(["name", name], {})
    assert columns.index_of[AssetField.SERIAL_NUMBER] == 1


def test_the_mapping_says_which_column_is_which_field() -> None:
    options = ImportAssets(file_id=UUID(FILE), mapping={"name": "Device", "serialNumber": "S/N"})  # type: ignore[dict-item]  # read as JSON would be

    columns = Columns.of([" Device ", "name", "S/N"], options.mapping)

    assert columns.index_of == {AssetField.NAME: 0, AssetField.SERIAL_NUMBER: 2}


def test_a_column_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownColumn, match=r"'Seriall' for 'serial_number'.*Did you mean 'Serial'"):
        Columns.of(["name", "Serial"], {AssetField.SERIAL_NUMBER: "Seriall"})


def test_a_file_in_which_nothing_is_the_name_is_refused() -> None:
    with pytest.raises(UnknownColumn, match="No column is read as 'name'"):
        Columns.of(["Device", "Serial"], {})


def test_a_column_that_is_there_twice_is_refused() -> None:
    with pytest.raises(UnknownColumn, match="more than one column"):
        Columns.of(["name", "Name"], {})


@pytest.mark.parametrize(
    "options",
    [{"mapping": {"colour": "x"}}, {"encoding": "klingon"}, {"delimiter": "-"}, {"name_similarity": 10}],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ImportAssets.model_validate({"fileId": FILE, **options})


# -- values


@pytest.mark.parametrize("text", ["00-1b-44-11-3A-B7", "001B.4411.3ab7", "001b44113ab7", "00:1B:44:11:3a:b7"])
def test_mac_addresses_have_one_spelling(text: str) -> None:
    assert draft(mac_address=text).mac_address == "00:1b:44:11:3a:b7"


@pytest.mark.parametrize("text", ["To be filled by O.E.M.", "N/A", "0", "none", " "])
def test_a_placeholder_is_no_serial_number(text: str) -> None:
    assert draft(serial_number=text).serial_number is None


def test_identifiers_lose_case_and_spaces() -> None:
    found = draft(serial_number=" pf2 abc1 ", asset_tag="a-17", host_name="RECEPTION-01.Corp.Example.")
    assert (found.serial_number, found.asset_tag) == ("PF2ABC1", "A-17")
    assert found.host_name == "reception-01.corp.example"


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ("iso", "2026-10-31"),
        ("day_first", "31.10.2026"),
        ("month_first", "10/31/2026"),
        ("day_first", "2026-10-31"),
    ],
)
def test_dates_are_read_in_the_order_that_the_job_says(order: str, text: str) -> None:
    found = read({"name": "Laptop", "purchased_on": text}, date_order=order)
    assert isinstance(found, Draft)
    assert found.purchased_on == date(2026, 10, 31)


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ({"mac_address": "00:1b:44"}, "mac_address: '00:1b:44' is no MAC address"),
        ({"host_name": "two words"}, "host_name: 'two words' is no host name"),
        ({"kind": "toaster"}, "kind: 'toaster' is none of workstation"),
        ({"purchased_on": "31/10/2026"}, "purchased_on: '31/10/2026' is no date like 2026-10-31"),
        ({"client_id": "nobody"}, "client_id: there is no client 'nobody'"),
        ({"name": " "}, "name: it is empty"),
        ({"name": "x" * 201}, "name: 201 characters, and 200 are allowed"),
        ({"model": "a\0b"}, "model: it holds a NUL character"),
        ({"serial_number": "#N/A"}, "serial_number: the cell holds the error #N/A"),
    ],
)
def test_a_row_that_cannot_be_an_asset_says_why(cells: dict[str, str], problem: str) -> None:
    assert problem in reason(**cells)


def test_all_that_is_wrong_with_a_row_is_told_at_once() -> None:
    assert reason(mac_address="x", kind="toaster", client_id="nobody").count(";") == 2


def test_without_a_client_in_row_or_job_a_row_is_invalid() -> None:
    found = read({"name": "Laptop"}, client_id=None)
    assert isinstance(found, Invalid)
    assert "neither the row nor the job says whose it is" in found.reason


def test_a_row_may_be_short_but_not_have_cells_without_a_column() -> None:
    options = ImportAssets(file_id=UUID(FILE), client_id="acme")
    columns = Columns.of(["name", "model"], {})
    short = read_row(Row(number=2, cells=("Laptop",)), columns, options, {"acme"})
    long = read_row(Row(number=3, cells=("Laptop", "X1", "stray")), columns, options, {"acme"})

    assert isinstance(short, Draft)
    assert isinstance(long, Invalid)
    assert "3 cells, and 2 columns" in long.reason


# -- duplicates


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("serial_number", "PF2ABC1"),
        ("asset_tag", "A-17"),
        ("mac_address", "00:1b:44:11:3a:b7"),
        ("host_name", "reception-01"),
    ],
)
def test_an_identifier_tells_a_duplicate(field: str, value: str) -> None:
    asset = known(name="Something else", **{field: value})
    matcher = Matcher(90)
    matcher.add(asset)

    duplicate = matcher.duplicate(draft(**{field: value}))

    assert duplicate is not None
    assert (duplicate.asset_id, duplicate.matched_by) == (asset.asset_id, AssetField(field))


def test_a_host_name_is_one_devices_at_one_client_only() -> None:
    matcher = Matcher(90)
    matcher.add(known(client_id="other", host_name="server-01"))
    assert matcher.duplicate(draft(host_name="server-01")) is None


@pytest.mark.parametrize(
    "name",
    ["Reception printer", "PRINTER, reception", "Recepton printer", "Réception-Printer", "reception_printer"],
)
def test_a_name_that_is_nearly_the_same_tells_a_duplicate(name: str) -> None:
    matcher = Matcher(90)
    matcher.add(known(name="Reception printer"))

    duplicate = matcher.duplicate(draft(name=name))

    assert duplicate is not None
    assert duplicate.matched_by is AssetField.NAME
    assert "% that of 'Reception printer' of client 'acme'" in duplicate.reason


@pytest.mark.parametrize(
    ("name", "asset"),
    [
        ("Reception printer 2", {"name": "Reception printer 1"}),
        ("Reception printer", {"name": "Kitchen printer"}),
        ("Reception printer", {"client_id": "other"}),
    ],
)
def test_names_that_mean_other_devices_do_not_match(name: str, asset: dict[str, str]) -> None:
    matcher = Matcher(90)
    matcher.add(known(**asset))
    assert matcher.duplicate(draft(name=name)) is None


def test_two_devices_that_something_tells_apart_may_have_one_name() -> None:
    matcher = Matcher(90)
    matcher.add(known(serial_number="ONE", kind=AssetKind.PRINTER))

    assert matcher.duplicate(draft(name="Reception printer", serial_number="TWO")) is None
    assert matcher.duplicate(draft(name="Reception printer", kind="server")) is None
    assert matcher.duplicate(draft(name="Reception printer", kind="printer")) is not None


def test_names_are_not_compared_if_nobody_wants_it() -> None:
    matcher = Matcher(None)
    matcher.add(known(name="Laptop"))
    assert matcher.duplicate(draft(name="Laptop")) is None


def test_a_duplicate_of_a_row_above_names_the_row() -> None:
    matcher = Matcher(90)
    matcher.add(known(name="Old", serial_number="ONE", import_row=17))

    duplicate = matcher.duplicate(draft(serial_number="one"))

    assert duplicate is not None
    assert duplicate.reason == "the serial number 'ONE' is that of 'Old' in row 17"


_words = st.lists(st.text("abcdefgh", min_size=1, max_size=8), min_size=2, max_size=6)


@given(words=_words, numbers=st.lists(st.integers(0, 99), max_size=2), data=st.data())
def test_names_that_differ_in_one_word_and_in_order_share_a_block(
    words: list[str], numbers: list[int], data: st.DataObject
) -> None:
    changed = list(words)
    changed[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.text("xyz", min_size=1, max_size=8))
    other = data.draw(st.permutations([*changed, *map(str, numbers)]))

    one, two = spelling_of(" ".join([*words, *map(str, numbers)])), spelling_of("-".join(other))

    assert set(blocks_of(one)) & set(blocks_of(two))


@given(st.text(), st.text())
def test_similarity_is_of_both_alike_and_full_with_itself(one: str, two: str) -> None:
    left, right = spelling_of(one), spelling_of(two)
    assert similarity(left, right) == similarity(right, left)
    assert similarity(left, left) == 100
    assert blocks_of(left)

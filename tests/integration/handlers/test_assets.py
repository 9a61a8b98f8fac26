"""`asset_import` on real tables: what becomes of each row, whatever happens in between."""

from __future__ import annotations

import csv
import io
import struct
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier
from typing import Any

import psycopg
import pytest

from jobbridge.handlers.assets.errors import FileUnreadable, NothingImported, UnknownColumn, UnknownFile
from jobbridge.handlers.assets.importing import Import
from jobbridge.handlers.assets.models import ImportAssets
from jobbridge.handlers.files import PIECE_SIZE, StoredFile, files_of_kind, open_file
from tests.books import Books
from tests.dying import Died, Mortal, die_at_each_step
from tests.support import wait_until
from tests.uploads import HEADER, as_csv, as_workbook, content_of_file, run_import, upload

#: Of each outcome, and each way to be a duplicate, at least one.
#: Whose books there are: see conftest.py.
TENANTS = ("t1", "t2")

ROWS = [
    ("Reception laptop", "northwind", "PF2-A1", "NW-001", "00:1b:44:11:3a:b7", "nw-laptop-1"),
    ("Accounts laptop", "northwind", "pf2-a1", "", "", ""),  # serial number
    ("Warehouse scanner", "northwind", "ZB-77", "nw-001", "", ""),  # tag
    ("Meeting room screen", "northwind", "", "", "001b.4411.3ab7", ""),  # MAC address
    ("Server", "northwind", "", "", "", "NW-LAPTOP-1."),  # host name
    ("laptop, Recepton", "northwind", "", "", "", ""),  # name
    ("Server", "lakeside", "", "", "", "nw-laptop-1"),  # created: another client's host name
    ("", "northwind", "X", "", "", ""),  # invalid
    ("Router", "nobody", "", "", "12:34", ""),  # invalid twice over
    ("Kitchen tablet", "lakeside", "T-9", "", "", ""),  # created
]

OUTCOMES = """
SELECT row_number, outcome, matched_by, reason, cells
FROM psa.asset_import_rows
WHERE tenant = %s
ORDER BY row_number
"""

ASSETS = """
SELECT name, client_id, serial_number, asset_tag, mac_address, host_name, import_row,
    (SELECT count(*) FROM psa.asset_names AS name WHERE name.asset_id = asset.asset_id)
FROM psa.assets AS asset
WHERE tenant = %s
ORDER BY import_row
"""


def outcomes(books: Books, tenant: str = "t1") -> list[tuple[Any, ...]]:
    with books.transaction() as connection:
        return connection.execute(OUTCOMES, [tenant]).fetchall()


def assets(books: Books, tenant: str = "t1") -> list[tuple[Any, ...]]:
    with books.transaction() as connection:
        return connection.execute(ASSETS, [tenant]).fetchall()


def report_lines(books: Books, report: StoredFile) -> list[list[str]]:
    text = content_of_file(books, report).decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text)))


def forget(books: Books) -> None:
    books.run(
        "TRUNCATE psa.asset_import_rows, psa.asset_imports, psa.asset_names, psa.assets, psa.files, psa.file_pieces"
    )


def test_each_row_has_its_outcome_and_what_is_new_is_created(books: Books) -> None:
    progress, _ = run_import(books, upload(books, as_csv(ROWS)))

    assert [(number, outcome, matched) for number, outcome, matched, *_ in outcomes(books)] == [
        (2, "created", None),
        (3, "duplicate", "serial_number"),
        (4, "duplicate", "asset_tag"),
        (5, "duplicate", "mac_address"),
        (6, "duplicate", "host_name"),
        (7, "duplicate", "name"),
        (8, "created", None),
        (9, "invalid", None),
        (10, "invalid", None),
        (11, "created", None),
    ]
    assert (progress.created, progress.duplicates, progress.invalid, progress.last_row) == (3, 5, 2, 11)
    assert [asset[:7] for asset in assets(books)] == [
        ("Reception laptop", "northwind", "PF2-A1", "NW-001", "00:1b:44:11:3a:b7", "nw-laptop-1", 2),
        ("Server", "lakeside", None, None, None, "nw-laptop-1", 8),
        ("Kitchen tablet", "lakeside", "T-9", None, None, None, 11),
    ]


def test_batches_make_no_difference(books: Books) -> None:
    run_import(books, upload(books, as_csv(ROWS)))
    whole = outcomes(books), assets(books)
    for batch in (1, 3):
        forget(books)
        run_import(books, upload(books, as_csv(ROWS)), batch=batch)
        assert (outcomes(books), assets(books)) == whole


def test_a_workbook_has_the_same_outcomes_as_the_same_rows_in_csv(books: Books) -> None:
    run_import(books, upload(books, as_csv(ROWS)))
    from_csv = outcomes(books)
    forget(books)

    run_import(books, upload(books, as_workbook(ROWS), name="devices.xlsx"))

    assert outcomes(books) == from_csv


def test_the_report_names_each_row_that_was_not_imported_and_can_be_uploaded_again(books: Books) -> None:
    _, report = run_import(books, upload(books, as_csv(ROWS)))

    assert report is not None
    assert report.name == "devices - rows that were not imported.csv"
    header, *lines = report_lines(books, report)
    assert header == ["row", "outcome", "reason", *HEADER]
    assert [line[0] for line in lines] == ["3", "4", "5", "6", "7", "9", "10"]
    assert lines[0][2] == "the serial number 'PF2-A1' is that of 'Reception laptop' in row 2"
    assert lines[6][2] == (
        "mac_address: '12:34' is no MAC address: it must have 12 hexadecimal digits; "
        "client_id: there is no client 'nobody'"
    )
    assert lines[6][3:] == ["Router", "nobody", "", "", "12:34", ""]

    corrected = content_of_file(books, report).replace(b"nobody", b"lakeside").replace(b"12:34", b"")
    progress, _ = run_import(books, upload(books, corrected), job="again")
    assert (progress.created, progress.duplicates, progress.invalid) == (1, 5, 1)


def test_a_cell_that_a_spreadsheet_would_run_is_harmless_in_the_report(books: Books) -> None:
    _, report = run_import(
        books,
        upload(
            books, as_csv([("=HYPERLINK(1)", "nobody", "-5", "", "", ""), ("Ok", "lakeside", "", "", "", "")])
        ),
    )
    assert report is not None
    assert report_lines(books, report)[1][3:6] == ["'=HYPERLINK(1)", "nobody", "-5"]


def test_an_import_without_a_fault_has_no_report(books: Books) -> None:
    progress, report = run_import(books, upload(books, as_csv([("Laptop", "lakeside")])))
    assert (progress.created, report) == (1, None)


def test_the_same_file_in_another_job_creates_nothing(books: Books) -> None:
    file = upload(books, as_csv(ROWS))
    run_import(books, file)

    progress, report = run_import(books, file, job="second")

    assert (progress.created, progress.duplicates) == (0, 8)
    assert report is not None
    assert (
        "'Reception laptop' of client 'northwind', which was there before"
        in report_lines(books, report)[1][2]
    )


def test_another_tenants_assets_clients_and_files_do_not_exist(books: Books) -> None:
    run_import(books, upload(books, as_csv(ROWS)))
    file = upload(books, as_csv(ROWS), tenant="t2")

    with pytest.raises(UnknownFile, match=str(file.file_id)):
        run_import(books, file)
    progress, _ = run_import(books, file, tenant="t2")

    assert progress.created == 3
    assert len(assets(books)) == len(assets(books, "t2")) == 3
    with books.transaction() as connection:
        assert len(files_of_kind(connection, "t2", "asset_import_report")) == 1


# -- what files look like


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (as_csv([("Büro", "lakeside")], delimiter=";"), {}),
        (as_csv([("Büro", "lakeside")], delimiter="\t"), {}),
        (b"\xef\xbb\xbf" + as_csv([("Büro", "lakeside")]), {}),
        (as_csv([("Büro", "lakeside")]).decode().encode("utf-16"), {}),
        (as_csv([("Büro", "lakeside")]).decode().encode("cp1252"), {"encoding": "cp1252"}),
        (b"name\r\n\r\nB\xc3\xbcro", {"client_id": "lakeside"}),
    ],
    ids=["semicolon", "tab", "mark", "utf-16", "cp1252", "one column, no last line end"],
)
def test_csv_is_read_as_it_comes(books: Books, content: bytes, options: dict[str, Any]) -> None:
    run_import(books, upload(books, content), **options)
    assert [name for name, *_ in assets(books)] == ["Büro"]


def test_a_row_that_is_quoted_wrongly_is_one_invalid_row(books: Books) -> None:
    content = b'name,model\r\nOne,"a"b\r\nTwo,x\r\nThree,"never\r\nclosed\r\n'

    run_import(books, upload(books, content), client_id="lakeside")

    assert [(number, outcome) for number, outcome, *_ in outcomes(books)] == [
        (2, "invalid"),
        (3, "created"),
        (4, "invalid"),
    ]
    assert [reason for *_, reason, _ in outcomes(books) if reason] == [
        "line 2 cannot be taken apart: ',' expected after '\"'",
        "lines 4 to 5 cannot be taken apart: unexpected end of data",
    ]


def test_what_comes_before_text_in_another_encoding_is_imported(books: Books) -> None:
    lines = [b"name"] + [f"Device {number}".encode() for number in range(1, 3000)]
    lines[2500] = b"B\xfcro"

    with pytest.raises(FileUnreadable, match="text that is not utf-8"):
        run_import(books, upload(books, b"\n".join(lines)), client_id="lakeside")

    assert 1500 < len(assets(books)) < 2500


def test_cells_of_a_workbook_are_read_as_somebody_would_type_them(books: Books) -> None:
    content = as_workbook(
        [
            ("Laptop", "lakeside", 4711.0, datetime(2026, 10, 31), None),
            ("Phone", "lakeside", 12.5, None, True),
        ],
        header=["name", "client_id", "asset_tag", "purchased_on", "notes"],
    )

    run_import(books, upload(books, content), sheet="Devices")

    query = "SELECT asset_tag, purchased_on::text, notes FROM psa.assets ORDER BY import_row"
    with books.transaction() as connection:
        assert connection.execute(query).fetchall() == [("4711", "2026-10-31", None), ("12.5", None, "TRUE")]


def _claims_to_be_huge(workbook: bytes) -> bytes:
    """Write into the archive's directory that its first member has almost 4 GiB."""
    place = workbook.index(b"PK\x01\x02") + 24
    return workbook[:place] + struct.pack("<I", 0xF0000000) + workbook[place + 4 :]


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (b"", {}, "it is empty"),
        (b"name,client_id\r\n", {}, "it has no rows below the column names"),
        (b"\r\n \r\n", {}, "it has no row"),
        (b"\xd0\xcf\x11\xe0 old", {}, "format before 2007"),
        (b"PK\x03\x04 cut off", {}, "the workbook is damaged"),
        (as_workbook(ROWS)[:-100], {}, "the workbook is damaged"),
        (
            _claims_to_be_huge(as_workbook(ROWS)),
            {},
            "unpacked it has 4,0[0-9,]+ bytes, and 524,288,000 are allowed",
        ),
        (as_workbook(ROWS), {"sheet": "Printers"}, "no sheet 'Printers' among 'Devices', 'Notes'"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    books: Books, content: bytes, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(FileUnreadable, match=problem) as caught:
        run_import(books, upload(books, content), **options)
    assert "upload it again" in caught.value.hint


def test_a_mapping_that_fits_no_column_imports_nothing(books: Books) -> None:
    with pytest.raises(UnknownColumn, match="no column 'Gerät'"):
        run_import(books, upload(books, as_csv(ROWS)), mapping={"name": "Gerät"})
    assert assets(books) == []


def test_an_import_of_which_no_row_is_valid_fails_and_keeps_its_report(books: Books) -> None:
    file = upload(books, as_csv(ROWS))
    with pytest.raises(
        NothingImported, match=r"None of the 10 rows of 'devices.csv' is valid. The first one: row 2: "
    ):
        run_import(books, file, mapping={"kind": "client_id"})
    with books.transaction() as connection:
        assert len(files_of_kind(connection, "t1", "asset_import_report")) == 1


def test_a_file_is_read_back_from_its_pieces_from_any_place(books: Books) -> None:
    content = bytes(range(256)) * (PIECE_SIZE // 100)
    file = upload(books, content)

    with open_file(books.transaction, "t1", file) as opened:
        for place in (0, PIECE_SIZE - 1, PIECE_SIZE, 2 * PIECE_SIZE + 7, len(content)):
            opened.seek(place)
            assert opened.read(1000) == content[place : place + 1000]
        opened.seek(-5, io.SEEK_END)
        assert opened.read() == content[-5:]


# -- dying, and others


def test_wherever_it_dies_the_next_attempt_ends_as_if_nothing_had_happened(books: Books) -> None:
    run_import(books, upload(books, as_csv(ROWS)), batch=3)
    undisturbed = outcomes(books), assets(books), report_text(books)

    def live_and_try_again(lives: int) -> None:
        forget(books)
        file = upload(books, as_csv(ROWS))
        mortal = Mortal(books.transaction, lives)
        try:
            run_import(books, file, transaction=mortal.transaction, batch=3)
        except Died:
            run_import(books, file, batch=3)
            assert (outcomes(books), assets(books), report_text(books)) == undisturbed
            raise

    assert die_at_each_step(live_and_try_again) > 10


def report_text(books: Books) -> bytes:
    with books.transaction() as connection:
        (report,) = files_of_kind(connection, "t1", "asset_import_report")
    return content_of_file(books, report)


def test_stopped_between_two_batches_it_goes_on_there(books: Books) -> None:
    file = upload(books, as_csv(ROWS))
    read: list[int] = []

    def stop(share: float, progress: Any) -> None:
        read.append(progress.last_row)
        if len(read) == 2:
            raise Died

    with pytest.raises(Died):
        run_import(books, file, batch=3, on_progress=stop)
    assert len(outcomes(books)) == 6

    run_import(books, file, batch=3, on_progress=lambda share, progress: read.append(progress.last_row))

    assert read == [4, 7, 10, 11]


def test_two_imports_of_the_same_devices_at_once_create_each_once(books: Books) -> None:
    rows = [(f"Device {number}", "lakeside", f"SN-{number}", "", "", "") for number in range(300)]
    files = [upload(books, as_csv(rows)), upload(books, as_csv(rows[::-1]))]
    together = Barrier(2)

    def run(number: int) -> Any:
        together.wait()
        return run_import(books, files[number], job=f"job-{number}", batch=20)[0]

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, range(2))

    assert one.created + two.created == 300
    assert one.duplicates + two.duplicates == 300
    assert len(assets(books)) == 300


def test_the_same_job_twice_at_once_gives_each_row_one_outcome(books: Books) -> None:
    rows = [(f"Device {number}", "lakeside", f"SN-{number}", "", "", "") for number in range(100)]
    file = upload(books, as_csv(rows))
    together = Barrier(2)

    def run(number: int) -> Any:
        together.wait()
        return run_import(books, file, batch=10)[0]

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, range(2))

    assert one == two
    assert (one.created, len(outcomes(books)), len(assets(books))) == (100, 100, 100)


def test_an_asset_that_somebody_adds_meanwhile_is_a_duplicate_and_not_an_error(books: Books) -> None:
    """The importer has looked, and does not see what is not committed; then the unique constraint decides."""
    insert = """
        INSERT INTO psa.assets (tenant, client_id, name, kind, serial_number)
        VALUES ('t1', 'lakeside', 'By hand', 'other', 'T-9')
    """
    with psycopg.connect(books.url) as somebody, ThreadPoolExecutor(1) as pool:
        somebody.execute(insert)
        importing = pool.submit(run_import, books, upload(books, as_csv(ROWS)))
        wait_for_lock(books)
        somebody.commit()
        progress, _ = importing.result(30)

    assert (progress.created, progress.duplicates) == (2, 6)
    assert [reason for number, _, _, reason, _ in outcomes(books) if number == 11] == [
        "the serial number 'T-9' is that of 'By hand' of client 'lakeside', which was there before"
    ]


def wait_for_lock(books: Books) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    wait_until(lambda: books.value(waiting), message="the import waits for somebody's transaction")


def test_the_data_of_the_job_is_the_only_thing_that_an_attempt_needs(books: Books) -> None:
    file = upload(books, as_csv(ROWS))
    data = ImportAssets.model_validate(
        {"fileId": str(file.file_id), "mapping": {"serialNumber": "serial_number"}, "nameSimilarity": None}
    )
    task = Import(transaction=books.transaction, tenant="t1", job_id="json", data=data)

    task.import_rows(task.upload(), lambda share, progress: None)
    progress, _ = task.finish(file)

    assert progress.created == 4, "names were not compared"

"""How far an import is, and what became of each row: `psa.asset_imports`, `psa.asset_import_rows`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from uuid import UUID

from psycopg.rows import tuple_row

from jobbridge.handlers.assets.models import Created, Duplicate, Invalid, Outcome
from jobbridge.handlers.files import ASSET_IMPORT_REPORT, StoredFile, file_of_job, keep_file
from jobbridge.handlers.sql import Connection, one, one_as, run

BEGIN = """
INSERT INTO psa.asset_imports (tenant, job_id, file_id)
VALUES (%(tenant)s, %(job_id)s, %(file_id)s)
ON CONFLICT DO NOTHING
"""

PROGRESS = """
SELECT last_row, created, duplicates, invalid
FROM psa.asset_imports
WHERE tenant = %(tenant)s AND job_id = %(job_id)s
"""

LOCK_PROGRESS = """
SELECT last_row, created, duplicates, invalid
FROM psa.asset_imports
WHERE tenant = %(tenant)s AND job_id = %(job_id)s
FOR NO KEY UPDATE
"""

ADVANCE = """
UPDATE psa.asset_imports
SET last_row = %(last_row)s, created = created + %(created)s, duplicates = duplicates + %(duplicates)s,
    invalid = invalid + %(invalid)s
WHERE tenant = %(tenant)s AND job_id = %(job_id)s
RETURNING last_row, created, duplicates, invalid
"""

FINISH = """
UPDATE psa.asset_imports
SET finished_at = now()
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND finished_at IS NULL
"""

# The cells of a row come as one text: rows differ in length, and unnest would flatten an array of arrays.
ADD_ROWS = """
INSERT INTO psa.asset_import_rows (tenant, job_id, row_number, outcome, asset_id, matched_by, reason, cells)
SELECT %(tenant)s, %(job_id)s, one.row_number, one.outcome, one.asset_id, one.matched_by, one.reason, one.cells::text[]
FROM unnest(%(row_number)s::integer[], %(outcome)s::text[], %(asset_id)s::uuid[], %(matched_by)s::text[],
    %(reason)s::text[], %(cells)s::text[]) AS one (row_number, outcome, asset_id, matched_by, reason, cells)
"""

FIRST_REASON = """
SELECT row_number, reason
FROM psa.asset_import_rows
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND outcome = 'invalid'
ORDER BY row_number
LIMIT 1
"""

NOT_CREATED = """
SELECT row_number, outcome, reason, cells
FROM psa.asset_import_rows
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND outcome <> 'created'
ORDER BY row_number
"""

_ROWS_AT_ONCE = 1000

_FORMULA = re.compile(r"[=+@\t\r]|-(?![\d.,]*$)")  # a negative number is none


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far an import is.

    Attributes:
        last_row: The last row with an outcome; 1 is the row of the column names.
    """

    last_row: int
    created: int
    duplicates: int
    invalid: int

    @property
    def rows(self) -> int:
        return self.created + self.duplicates + self.invalid


def begin_import(connection: Connection, tenant: str, job_id: str, file_id: UUID) -> Progress:
    """Note that the import has begun, unless it has; give how far it is."""
    key = {"tenant": tenant, "job_id": job_id}
    run(connection, BEGIN, {**key, "file_id": file_id})
    progress = one_as(Progress, connection, PROGRESS, key)
    assert progress is not None  # the insert made it, or conflicted with it
    return progress


def lock_progress(connection: Connection, tenant: str, job_id: str) -> Progress:
    """Give how far the import is; until the transaction ends, nobody else moves it on."""
    progress = one_as(Progress, connection, LOCK_PROGRESS, {"tenant": tenant, "job_id": job_id})
    assert progress is not None  # begin_import was committed
    return progress


def finish_import(connection: Connection, tenant: str, job_id: str) -> None:
    run(connection, FINISH, {"tenant": tenant, "job_id": job_id})


def add_outcomes(connection: Connection, tenant: str, job_id: str, outcomes: Sequence[Outcome]) -> Progress:
    """Keep what became of some rows, and move the import on behind the last of them; give how far it is then."""
    key = {"tenant": tenant, "job_id": job_id}
    columns = zip(*(_columns(outcome) for outcome in outcomes), strict=True)
    names = ("row_number", "outcome", "asset_id", "matched_by", "reason", "cells")
    run(connection, ADD_ROWS, key | dict(zip(names, map(list, columns), strict=True)))
    counts = {
        "created": sum(isinstance(outcome, Created) for outcome in outcomes),
        "duplicates": sum(isinstance(outcome, Duplicate) for outcome in outcomes),
        "invalid": sum(isinstance(outcome, Invalid) for outcome in outcomes),
    }
    progress = one_as(Progress, connection, ADVANCE, {**key, **counts, "last_row": outcomes[-1].row.number})
    assert progress is not None  # lock_progress found it
    return progress


def first_reason(connection: Connection, tenant: str, job_id: str) -> str:
    """Give what is wrong with the first invalid row."""
    found = one(connection, FIRST_REASON, {"tenant": tenant, "job_id": job_id})
    return f"row {found[0]}: {found[1]}." if found else "there is none."


def keep_report(
    connection: Connection, tenant: str, job_id: str, upload: StoredFile, header: Sequence[str]
) -> StoredFile:
    """Give the job's report, writing it if it is missing: a CSV file of the rows that were not created.

    It has the upload's own columns, so it can be corrected and uploaded again; three columns before them tell the row's
    number, its outcome, and why.
    """
    existing = file_of_job(connection, tenant, job_id, ASSET_IMPORT_REPORT)
    if existing is not None:
        return existing
    return keep_file(
        connection,
        tenant,
        kind=ASSET_IMPORT_REPORT,
        name=f"{PurePath(upload.name).stem} - rows that were not imported.csv",
        media_type="text/csv",
        content=_report(connection, tenant, job_id, header),
        job_id=job_id,
    )


def _report(connection: Connection, tenant: str, job_id: str, header: Sequence[str]) -> Iterator[bytes]:
    yield b"\xef\xbb\xbf"  # by this mark Excel knows that it is UTF-8
    yield _line(["row", "outcome", "reason", *header])
    # A cursor with a name stays in the server, and gives its rows in portions.
    with connection.cursor(f"report {job_id}", row_factory=tuple_row) as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(NOT_CREATED, {"tenant": tenant, "job_id": job_id})
        for number, outcome, reason, cells in cursor:
            yield _line([str(number), outcome, reason, *cells])


def _line(cells: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(map(_harmless, cells))
    return line.getvalue().encode()


def _harmless(cell: str) -> str:
    """Keep a spreadsheet from running what stands in a cell: the text came from whoever wrote the upload.

    Source: OWASP, "CSV Injection".
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _columns(
    outcome: Outcome,
) -> tuple[int, str, UUID | None, str | None, str | None, str | None]:
    number = outcome.row.number
    match outcome:
        case Created():
            return number, "created", outcome.asset_id, None, None, None
        case Duplicate():
            cells = _array(outcome.row.cells)
            return number, "duplicate", outcome.asset_id, outcome.matched_by, outcome.reason, cells
        case Invalid():
            return number, "invalid", None, None, outcome.reason, _array(outcome.row.cells)


def _array(cells: Sequence[str]) -> str:
    """Write cells as an array of Postgres in text: a list of arrays would have to have one length each.

    What Postgres cannot hold (NUL, half a character) is replaced.
    """
    quoted = (cell.replace("\0", "�").replace("\\", "\\\\").replace('"', '\\"') for cell in cells)
    text = "{" + ",".join(f'"{cell}"' for cell in quoted) + "}"
    return text.encode("utf-8", "replace").decode()

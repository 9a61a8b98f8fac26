"""What goes wrong with a whole import. What is wrong with one row is no error: it is that row's outcome.

ImportRefusal              another attempt cannot cure it: somebody must correct the file or the job's data
├── UnknownFile            no such upload in this tenant
├── FileUnreadable         it is neither CSV nor XLSX, or damaged, or too large to be unpacked
├── UnknownColumn          the mapping names a column that the file does not have
└── NothingImported        not one row of the file could be used
RowsContested              other transactions kept adding the same assets; another attempt may cure it
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Self
from uuid import UUID

from jobbridge.errors import JobBridgeError
from jobbridge.handlers.errors import Refusal


class ImportRefusal(Refusal):
    """The file, or how it is to be read, must be corrected."""


class UnknownFile(ImportRefusal):
    """No such upload in this tenant."""

    hint = "Check file_id, and the tenant of the job."

    @classmethod
    def about(cls, file_id: UUID) -> Self:
        return cls(f"There is no uploaded file {file_id} in this tenant.")


class FileUnreadable(ImportRefusal):
    """The file cannot be read as a table."""

    hint = "Save it as .xlsx or as CSV in UTF-8, with the column names in the first row, and upload it again."

    @classmethod
    def about(cls, name: str, reason: str) -> Self:
        return cls(f"{name!r} cannot be read: {reason}.")


class UnknownColumn(ImportRefusal):
    """The mapping names a column that the file does not have."""

    hint = "Correct the mapping (field: column), or the file's first row."

    @classmethod
    def about(cls, field: str, column: str, header: Sequence[str]) -> Self:
        near = difflib.get_close_matches(column, header, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(map(repr, header[:30]))
        return cls(f"The file has no column {column!r} for {str(field)!r}.{meant} It has {shown}.")

    @classmethod
    def twice(cls, field: str, column: str) -> Self:
        return cls(f"The file has more than one column {column!r}, which is to be read as {str(field)!r}.")

    @classmethod
    def missing(cls, field: str, header: Sequence[str]) -> Self:
        shown = ", ".join(map(repr, header[:30]))
        return cls(f"No column is read as {str(field)!r}, which each asset needs. The file has {shown}.")


class NothingImported(ImportRefusal):
    """Not one row of the file could be used: most likely the mapping is wrong."""

    hint = "Read the report of the import, correct the mapping or the file, and start a new job."

    @classmethod
    def about(cls, name: str, rows: int, reason: str) -> Self:
        return cls(f"None of the {rows} rows of {name!r} is valid. The first one: {reason}")


class RowsContested(JobBridgeError):
    """Other transactions kept adding, and taking back, the same assets."""

    hint = "Wait: the next attempt goes on at the same row."

    @classmethod
    def about(cls, rows: Sequence[int]) -> Self:
        return cls(f"Rows {', '.join(map(str, rows[:5]))} met assets that were gone a moment later.")

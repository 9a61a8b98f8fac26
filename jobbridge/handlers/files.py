"""Files of any size, kept in pieces: neither writing nor reading one takes more memory than a piece."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from jobbridge.handlers.sql import Connection, Transaction, one, one_as, rows_as, run

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ASSET_UPLOAD = "asset_upload"
ASSET_IMPORT_REPORT = "asset_import_report"

PIECE_SIZE = 256 * 1024

# Size and digest are known when the last piece is written.
BEGIN = """
INSERT INTO psa.files (tenant, kind, name, media_type, size, sha256, job_id)
VALUES (%(tenant)s, %(kind)s, %(name)s, %(media_type)s, 0, '', %(job_id)s)
RETURNING file_id
"""

ADD_PIECE = """
INSERT INTO psa.file_pieces (tenant, file_id, position, content)
VALUES (%(tenant)s, %(file_id)s, %(position)s, %(content)s)
"""

FINISH = """
UPDATE psa.files
SET size = %(size)s, sha256 = %(sha256)s
WHERE tenant = %(tenant)s AND file_id = %(file_id)s
RETURNING file_id, kind, name, media_type, size, sha256, job_id
"""

OF_TENANT = """
SELECT file_id, kind, name, media_type, size, sha256, job_id
FROM psa.files
WHERE tenant = %(tenant)s"""

FIND = f"{OF_TENANT} AND file_id = %(file_id)s"

OF_JOB = f"{OF_TENANT} AND job_id = %(job_id)s AND kind = %(kind)s"

ALL_OF_KIND = f"{OF_TENANT} AND kind = %(kind)s ORDER BY name, file_id"

PIECE = """
SELECT content
FROM psa.file_pieces
WHERE tenant = %(tenant)s AND file_id = %(file_id)s AND position = %(position)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file without its content.

    Attributes:
        size: In bytes.
        job_id: The job that made it; None: somebody uploaded it.
    """

    file_id: UUID
    kind: str
    name: str
    media_type: str
    size: int
    sha256: str
    job_id: str | None


def keep_file(
    connection: Connection,
    tenant: str,
    *,
    kind: str,
    name: str,
    media_type: str,
    content: Iterable[bytes],
    job_id: str | None = None,
) -> StoredFile:
    """Keep a file, whose content comes in parts of any size."""
    begun = one(
        connection,
        BEGIN,
        {"tenant": tenant, "kind": kind, "name": name, "media_type": media_type, "job_id": job_id},
    )
    assert begun is not None
    key = {"tenant": tenant, "file_id": begun[0]}
    size, digest = 0, hashlib.sha256()
    for position, piece in enumerate(_pieces(content)):
        run(connection, ADD_PIECE, {**key, "position": position, "content": piece})
        size += len(piece)
        digest.update(piece)
    finished = one_as(StoredFile, connection, FINISH, {**key, "size": size, "sha256": digest.hexdigest()})
    assert finished is not None
    return finished


def find_file(connection: Connection, tenant: str, file_id: UUID) -> StoredFile | None:
    return one_as(StoredFile, connection, FIND, {"tenant": tenant, "file_id": file_id})


def file_of_job(connection: Connection, tenant: str, job_id: str, kind: str) -> StoredFile | None:
    return one_as(StoredFile, connection, OF_JOB, {"tenant": tenant, "job_id": job_id, "kind": kind})


def files_of_kind(connection: Connection, tenant: str, kind: str) -> Sequence[StoredFile]:
    return rows_as(StoredFile, connection, ALL_OF_KIND, {"tenant": tenant, "kind": kind})


def open_file(transaction: Transaction, tenant: str, file: StoredFile) -> io.BufferedReader:
    """Give the file's content as an open, seekable file. Each piece is read in a transaction of its own."""
    return io.BufferedReader(_PieceReader(transaction, tenant, file), PIECE_SIZE)


def _pieces(content: Iterable[bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    for part in content:
        waiting += part
        while len(waiting) >= PIECE_SIZE:
            yield bytes(waiting[:PIECE_SIZE])
            del waiting[:PIECE_SIZE]
    if waiting:
        yield bytes(waiting)


class _PieceReader(io.RawIOBase):
    """Reads from the piece in which the position lies, and keeps that one in memory."""

    def __init__(self, transaction: Transaction, tenant: str, file: StoredFile) -> None:
        self._transaction, self._tenant, self._file = transaction, tenant, file
        self._position = 0
        self._piece: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise OSError(f"Position {start + offset} is before the start of {self._file.name!r}.")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if self._position >= self._file.size:
            return 0
        number, offset = divmod(self._position, PIECE_SIZE)
        part = self._content(number)[offset : offset + len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _content(self, number: int) -> bytes:
        if self._piece[0] != number:
            parameters = {"tenant": self._tenant, "file_id": self._file.file_id, "position": number}
            with self._transaction() as connection:
                found = one(connection, PIECE, parameters)
            if found is None:
                raise OSError(f"Piece {number} of {self._file.name!r} ({self._file.file_id}) is missing.")
            self._piece = (number, bytes(found[0]))
        return self._piece[1]

"""Finished documents, kept in `psa.documents`: what was made once is not made again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from jobbridge.handlers.sql import Connection, one, one_as, rows_as, run

INVOICE_PDF = "invoice_pdf"
INVOICE_ARCHIVE = "invoice_archive"

# Whoever comes second, by a race or after a crash, finds the first one's document.
KEEP = """
INSERT INTO psa.documents (tenant, kind, name, media_type, content, sha256, client_id, invoice_id, job_id)
VALUES (%(tenant)s, %(kind)s, %(name)s, %(media_type)s, %(content)s, %(sha256)s, %(client_id)s, %(invoice_id)s,
    %(job_id)s)
ON CONFLICT DO NOTHING
"""

OF_TENANT = """
SELECT document_id, kind, name, media_type, sha256, octet_length(content) AS size, client_id, invoice_id, job_id
FROM psa.documents
WHERE tenant = %(tenant)s"""

OF_INVOICE = f"{OF_TENANT} AND invoice_id = %(invoice_id)s AND kind = 'invoice_pdf'"

ARCHIVE_OF_JOB = f"{OF_TENANT} AND job_id = %(job_id)s AND kind = 'invoice_archive'"

ALL = f"{OF_TENANT} ORDER BY kind, name, document_id"

CONTENT = """
SELECT content
FROM psa.documents
WHERE tenant = %(tenant)s AND document_id = %(document_id)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document without its content."""

    document_id: UUID
    kind: str
    name: str
    media_type: str
    sha256: str
    size: int
    client_id: str | None
    invoice_id: UUID | None
    job_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NewDocument:
    """A document to be kept.

    Attributes:
        client_id: None if it is not of one client.
        job_id: The job that made it.
    """

    kind: str
    name: str
    media_type: str
    content: bytes
    client_id: str | None
    invoice_id: UUID | None
    job_id: str


def keep_document(connection: Connection, tenant: str, new: NewDocument) -> Document:
    """Keep it, unless there is one for that invoice, or that job's archive, already: then that one is given."""
    parameters = {
        "tenant": tenant,
        "kind": new.kind,
        "name": new.name,
        "media_type": new.media_type,
        "content": new.content,
        "sha256": hashlib.sha256(new.content).hexdigest(),
        "client_id": new.client_id,
        "invoice_id": new.invoice_id,
        "job_id": new.job_id,
    }
    run(connection, KEEP, parameters)
    kept = (
        pdf_of_invoice(connection, tenant, new.invoice_id)
        if new.invoice_id is not None
        else archive_of_job(connection, tenant, new.job_id)
    )
    assert kept is not None  # the insert made it, or conflicted with it
    return kept


def pdf_of_invoice(connection: Connection, tenant: str, invoice_id: UUID) -> Document | None:
    return one_as(Document, connection, OF_INVOICE, {"tenant": tenant, "invoice_id": invoice_id})


def archive_of_job(connection: Connection, tenant: str, job_id: str) -> Document | None:
    return one_as(Document, connection, ARCHIVE_OF_JOB, {"tenant": tenant, "job_id": job_id})


def documents_of(connection: Connection, tenant: str) -> Sequence[Document]:
    """Give all of a tenant's documents, by kind and name."""
    return rows_as(Document, connection, ALL, {"tenant": tenant})


def content_of(connection: Connection, tenant: str, document_id: UUID) -> bytes:
    """Give the bytes of a document.

    Raises:
        LookupError: No such document in this tenant.
    """
    found = one(connection, CONTENT, {"tenant": tenant, "document_id": document_id})
    if found is None:
        raise LookupError(f"There is no document {document_id} in this tenant.")
    return bytes(found[0])

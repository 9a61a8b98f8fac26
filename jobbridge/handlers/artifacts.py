"""The documents that a job made, for those who look at the job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.app.results.artifacts import Artifact
from jobbridge.handlers.documents import OF_TENANT, Document, content_of
from jobbridge.handlers.sql import rows_as

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.jobs.rows import JobRow

#: Steps that name a document, at most.
MOST = 200

OF_IDS = f"{OF_TENANT} AND document_id = ANY(%(ids)s) ORDER BY kind, name, document_id"


def artifacts_of(app: Celery, job: JobRow) -> Sequence[Artifact]:
    """Give the documents that the job's result and its steps name."""
    named = [job.result, *(step.result for step in app.jobs.details(job.key))]
    ids = list(dict.fromkeys(_ids(named)))[:MOST]
    if not ids:
        return []
    with app.database.connection() as connection:
        found = rows_as(Document, connection, OF_IDS, {"tenant": job.tenant, "ids": ids})
    return [_artifact(app, job.tenant, document) for document in found]


def _ids(results: Sequence[Any]) -> Iterator[UUID]:
    for result in results:
        if isinstance(result, dict) and isinstance(text := result.get("document_id"), str):
            try:
                yield UUID(text)
            except ValueError:
                continue


def _artifact(app: Celery, tenant: str, document: Document) -> Artifact:
    return Artifact(
        artifact_id=str(document.document_id),
        name=document.name,
        media_type=document.media_type,
        size=document.size,
        read=partial(_read, app, tenant, document.document_id),
    )


def _read(app: Celery, tenant: str, document_id: UUID) -> bytes:
    with app.database.connection() as connection:
        return content_of(connection, tenant, document_id)

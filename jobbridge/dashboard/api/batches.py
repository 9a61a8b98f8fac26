"""Batches: list, look at, cancel."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import Field
from starlette.exceptions import HTTPException

from jobbridge.core.access import Role
from jobbridge.core.masking.values import without_passwords
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.access.bodies import STORABLE
from jobbridge.dashboard.access.request_context import POST, RequestContext
from jobbridge.dashboard.api.documents.responses import EXAMPLE_ID, Answer, Exact
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked
from jobbridge.store.batches.progress import BatchProgress, BatchState


class Batch(Answer):
    """A batch, and how far it is."""

    id: UUID = Field(examples=[EXAMPLE_ID])
    tenant: str
    name: str
    state: BatchState
    reason: str | None = Field(description="Why it was cancelled.")
    total: int = Field(description="Its jobs so far.")
    completed: int
    failed: int = Field(description="Those that ended otherwise than completed.")
    open: int
    percent: float = Field(description="How much has ended, 0 to 100.")
    statuses: dict[JobStatus, int]
    created_at: datetime
    sealed_at: datetime | None = Field(description="When its block ended.")
    ended_at: datetime | None


class Batches(Answer):
    """Some batches, the newest first."""

    batches: list[Batch]


class CancelBatch(Exact):
    """Why."""

    reason: str | None = Field(None, max_length=1000, json_schema_extra={**STORABLE})


class CancelledBatch(Answer):
    """Whether it was cancelled now, and how it is."""

    cancelled: bool
    batch: Batch


def list_batches(
    context: Asked,
    state: Annotated[list[BatchState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Batches:
    """Give batches, the newest first, with how far they are."""
    found = context.app.batches.store.page(tenant=context.tenant, states=state, limit=limit)
    return Batches(batches=[_answer(each) for each in found])


def get_batch(context: Asked, batch_id: UUID) -> Batch:
    """Give one batch, with how far it is."""
    return _answer(_found(context, batch_id))


def cancel_batch(context: Asked, batch_id: UUID, asked: CancelBatch | None = None) -> CancelledBatch:
    """Cancel the jobs of a batch that have not ended. Nothing follows, and nothing joins it any more."""
    batch, reason = _found(context, batch_id), asked.reason if asked else None
    by = context.principal.name
    is_new = context.app.batches.cancel(batch.id, reason=reason, cancelled_by=by)
    context.note(
        "cancel batch",
        tenant=batch.tenant,
        subject=str(batch.id),
        outcome="done" if is_new else "ended before",
        reason=reason,
    )
    return CancelledBatch(cancelled=is_new, batch=_answer(context.app.batches.progress(batch.id)))


def _found(context: RequestContext, batch_id: UUID) -> BatchProgress:
    batch = context.app.batches.store.progress(batch_id)
    if (
        batch is None
        or not context.principal.sees(batch.tenant)
        or context.tenant not in (None, batch.tenant)
    ):
        raise HTTPException(404, f"There is no batch {batch_id}.")
    return batch


def _answer(batch: BatchProgress) -> Batch:
    return Batch.model_validate(batch).model_copy(update={"reason": without_passwords(batch.reason) or None})


_TAG = "batches"
_BATCH = f"{PREFIX}/batches/{{batch_id}}"

RULES = (
    ApiRule(f"{PREFIX}/batches", "api_batches", list_batches, Role.VIEWER, tag=_TAG),
    ApiRule(_BATCH, "api_batch", get_batch, Role.VIEWER, tag=_TAG, errors=(404,)),
    ApiRule(
        f"{_BATCH}/cancel",
        "api_cancel_batch",
        cancel_batch,
        Role.OPERATOR,
        methods=POST,
        tag=_TAG,
        errors=(404,),
    ),
)

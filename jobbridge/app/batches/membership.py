"""Which batch the code that sends is in: its jobs carry the mark of that batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from jobbridge.store.batches.progress import BATCH

_joined: ContextVar[UUID | None] = ContextVar("jobbridge_batch", default=None)


def joined() -> UUID | None:
    """Give the batch that jobs join which are sent here; None: none."""
    return _joined.get()


@contextmanager
def joining(batch_id: UUID | None) -> Iterator[None]:
    """Have what is sent inside join a batch; None: have it join none, whatever block this is in."""
    token = _joined.set(batch_id)
    try:
        yield
    finally:
        _joined.reset(token)


def batch_of(request: Any) -> UUID | None:
    """Give the batch of the job that a request is of."""
    told = getattr(request, BATCH, None)
    try:
        return UUID(told) if isinstance(told, str) else None
    except ValueError:
        return None  # somebody else's header


def with_batch(options: dict[str, Any], running: Any) -> dict[str, Any]:
    """Give options of `send_task` with the mark of the batch, if there is one.

    Args:
        options: As they are given.
        running: The task that runs here: what it sends to go on itself stays in the batch that it is in.
    """
    batch_id = _joined.get()
    if batch_id is None or (running is not None and running.request.id == options.get("task_id")):
        return options
    headers: Mapping[str, Any] = options.get("headers") or {}
    return {**options, "headers": {**headers, BATCH: str(batch_id)}}

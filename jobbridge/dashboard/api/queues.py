"""Queues, of both engines: what waits, who serves them; pause and resume."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import Field

from jobbridge.core.access import Role
from jobbridge.core.masking.values import without_passwords
from jobbridge.dashboard.access.bodies import STORABLE
from jobbridge.dashboard.access.request_context import POST, storable
from jobbridge.dashboard.api.documents.responses import Exact, Pause, Queue, QueuePaused, Queues, Waiting
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked
from jobbridge.diagnosis import queues
from jobbridge.errors import JobBridgeError
from jobbridge.store.workers.queue_pauses import QueuePause, QueuePauses


class PauseQueue(Exact):
    """Why."""

    note: str | None = Field(None, max_length=500, json_schema_extra={**STORABLE})


#: What `QueuePauses` refuses is said here, and left to it: a refusal is on record.
Named = Annotated[str, Path(json_schema_extra={"pattern": r"\S", "maxLength": 255})]


def list_queues(
    context: Asked,
    after: Annotated[str, Query(max_length=255, description="A page's `next`.")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
) -> Queues:
    """Give the queues that are served, used or paused, by name, with what waits there."""
    page = queues.look(context.app, context.app.workers.alive(), after=storable(after), limit=limit)
    return Queues(queues=[_queue(row) for row in page.queues], next=page.next, problem=page.problem)


def pause_queue(context: Asked, queue: Named, asked: PauseQueue | None = None) -> QueuePaused:
    """Have no worker take anything new from a queue, on either engine.

    What runs goes on, nothing is lost, and it holds until the queue is resumed, also for workers that start later.
    """
    name, note = storable(queue), asked.note if asked else None
    try:
        is_new = QueuePauses(context.app.database).pause(name, by=context.principal.name, note=note)
    except JobBridgeError as error:
        context.note("pause queue", outcome="refused", subject=name[:200], reason=str(error))
        raise
    outcome = "done" if is_new else "was paused before"
    context.note("pause queue", outcome=outcome, subject=name, reason=note)
    return QueuePaused(name=name, paused=True, changed=is_new, warning=_warning(context, name))


def resume_queue(context: Asked, queue: str) -> QueuePaused:
    """Let workers take from a queue again."""
    name = storable(queue)
    was_paused = QueuePauses(context.app.database).resume(name)
    outcome = "done" if was_paused else "was not paused"
    context.note("resume queue", outcome=outcome, subject=name[:200])
    return QueuePaused(name=name, paused=False, changed=was_paused, warning=_warning(context, name))


def _warning(context: Asked, name: str) -> str | None:
    return queues.why_unknown(context.app, context.app.workers.alive(), name)


def _queue(row: queues.Queue) -> Queue:
    return Queue(
        name=row.name,
        waiting=[Waiting.model_validate(each) for each in row.waiting],
        workers=sorted({name for _, name in row.workers}),
        pause=None if row.pause is None else _pause(row.pause),
    )


def _pause(row: QueuePause) -> Pause:
    return Pause.model_validate(row).model_copy(update={"note": without_passwords(row.note) or None})


_TAG = "workers and queues"

RULES = (
    ApiRule(f"{PREFIX}/queues", "api_queues", list_queues, Role.VIEWER, is_global=True, tag=_TAG),
    *(
        ApiRule(
            f"{PREFIX}/queues/{{queue}}/{name}",
            f"api_queue_{name}",
            endpoint,
            Role.OPERATOR,
            methods=POST,
            is_global=True,
            tag=_TAG,
        )
        for name, endpoint in (("pause", pause_queue), ("resume", resume_queue))
    ),
)

"""The workers that live, by engine, what they run, and the queues that they serve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule, storable
from jobbridge.dashboard.pages.queue import queue_path
from jobbridge.diagnosis.queues import COUNTED, look, unknown_pauses
from jobbridge.errors import JobBridgeError
from jobbridge.store.jobs.open_jobs import running_jobs
from jobbridge.store.workers.queue_pauses import QueuePauses

if TYPE_CHECKING:
    from jobbridge.store.jobs.open_jobs import RunningJob

_QUEUES = 100
_WORKERS = 200
_JOBS_OF_A_WORKER = 5


def workers(context: RequestContext) -> Response:
    """The workers and the queues."""
    rows = context.app.workers.all()
    alive = [row for row in rows if row.is_alive]
    runs: defaultdict[int, list[RunningJob]] = defaultdict(list)
    for job in running_jobs(context.app.database, [row.number for row in alive]):
        runs[job.worker_number].append(job)
    query = context.request.query_params
    kept = {name: query[name] for name in ("after", "state") if query.get(name)}
    queues = look(
        context.app,
        alive,
        after=storable(query.get("after", "")),
        limit=_QUEUES,
        only_paused=query.get("state") == "paused",
    )
    return context.dashboard.page(
        context,
        "workers.html",
        workers=rows[:_WORKERS],
        unshown=max(0, len(rows) - _WORKERS),
        runs=runs,
        jobs_shown=_JOBS_OF_A_WORKER,
        queues=queues.queues,
        unknown=unknown_pauses(context.app, alive, queues.queues),
        queue_path=partial(queue_path, context),
        here=context.path("workers", query=kept),
        following=context.path("workers", query=kept | {"after": queues.next}) if queues.next else None,
        problem=queues.problem,
        counted=COUNTED,
        may_act=context.principal.may(Role.OPERATOR),
    )


def pause(context: RequestContext) -> Response:
    """Have no worker take anything new from a queue, on either engine, until somebody resumes it."""
    note = context.form.get("note", "").strip() or None
    pauses = QueuePauses(context.app.database)
    return _do(
        context, "pause queue", lambda queue: pauses.pause(queue, by=context.principal.name, note=note), note
    )


def resume(context: RequestContext) -> Response:
    """Let workers take from a queue again."""
    return _do(context, "resume queue", QueuePauses(context.app.database).resume)


def _do(
    context: RequestContext, action: str, run: Callable[[str], bool], reason: str | None = None
) -> Response:
    queue = storable(context.form.get("queue", ""))
    if not queue:
        raise HTTPException(400, "The form names no queue.")
    try:
        has_changed = run(queue)
    except JobBridgeError as error:
        context.note(action, outcome="refused", subject=queue[:200], reason=str(error))
        raise HTTPException(422, f"{error} {error.hint}".strip()) from error
    outcome = "done" if has_changed else "was so before"
    context.note(action, outcome=outcome, subject=queue, reason=reason)
    is_of_queue = context.form.get("page") == "queue"
    back = queue_path(context, queue) if is_of_queue else context.path("workers")
    return RedirectResponse(back, status_code=303)


RULES = (
    Rule("/workers", "workers", workers, Role.VIEWER, is_global=True),
    Rule("/queues/pause", "pause_queue", pause, Role.OPERATOR, methods=POST, is_global=True),
    Rule("/queues/resume", "resume_queue", resume, Role.OPERATOR, methods=POST, is_global=True),
)

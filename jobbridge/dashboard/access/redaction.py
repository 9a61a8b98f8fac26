"""What of a job somebody of one tenant is told who must learn nothing of the others.

A job may have been sent by a job of another tenant, as a child of one that goes over all tenants is. And what keeps a
job from running may be the whole installation's: then it is said in words that name no worker, queue or number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from jobbridge.diagnosis.explain import Reason

if TYPE_CHECKING:
    from jobbridge.dashboard.access.request_context import RequestContext
    from jobbridge.store.jobs.rows import JobRow

#: Whether the job of an id may be named.
IsSeen: TypeAlias = Callable[[UUID], bool]

#: Reasons that tell of nothing but the job itself.
_OF_THE_JOB = frozenset(
    {
        "ended",
        "not_due",
        "pending",
        "expires",
        "last_error",
        "waits_for_chain",
        "suspended",
        "children",
        "sleeping",
        "waits_for_event",
        "waits_for_call",
    }
)

_IN_LINE = "It is in line, and starts when a worker has time for it."
_UNSETTLED = "Its engine says something else of it than is known here; that is settled by itself."

#: What is said in the place of others. A reason that is in neither is left out.
_IN_OTHER_WORDS: Mapping[str, str] = {
    "running": "It runs.",
    "worker_lost": "The worker that ran it is gone. It runs again, or fails, when that is settled.",
    "in_line": _IN_LINE,
    "prefetched": _IN_LINE,
    "queue_paused": "Its queue is paused: workers take nothing new from it.",
    "no_worker": "No worker serves its queue.",
    "unknown_task": "No worker knows its type.",
    "fell_back": "It fell back to the other engine, since its own could not be reached.",
    "unreachable": "Its engine cannot be reached.",
    "buried": "It was given up by the broker.",
    "no_message": _UNSETTLED,
    "no_workflow": _UNSETTLED,
    "workflow_closed": _UNSETTLED,
    "wait_overdue": _UNSETTLED,
}


def reasons_for(context: RequestContext, reasons: Sequence[Reason]) -> list[Reason]:
    """Give the reasons as this person may read them; hints are commands for operators of the whole installation."""
    if context.principal.tenant is None:
        return list(reasons)
    told = {
        _IN_OTHER_WORDS.get(reason.code, reason.what): reason.code
        for reason in reasons
        if reason.code in _OF_THE_JOB or reason.code in _IN_OTHER_WORDS
    }
    return [Reason(code=code, what=what) for what, code in told.items()]


def seen_related(context: RequestContext, rows: Iterable[JobRow]) -> IsSeen:
    """Tell which of the jobs that these come from may be named: all, or those of the one tenant that there is."""
    tenant = context.principal.tenant
    if tenant is None:
        return lambda job_id: True
    rows = list(rows)
    known = {row.job_id for row in rows}
    asked = {other for row in rows for other in (row.parent_id, row.root_id) if other is not None} - known
    if asked:
        known |= context.app.jobs.some(tenant, list(asked)).keys()
    return known.__contains__

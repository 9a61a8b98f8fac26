"""Compares both sides after a move: what waits has its message, or its workflow, and nothing stays without a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobbridge.broker import headers_of
from jobbridge.core.keys import Engine
from jobbridge.core.status import WAITING, JobStatus
from jobbridge.cutover.messages import delivery_in
from jobbridge.store.moves import jobs as moves
from jobbridge.store.moves.jobs import MovableJob
from jobbridge.store.rules.holds import still_held

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.cutover.report import Report, Scope

_PAGE = 500
_NAMED = 5

#: Of what `moves.counts` tells.
_STAYING = {
    JobStatus.PROCESSING.value: "running: they end where they are",
    "waits for others": "waiting for children, or for the chain that took their place",
    "on another broker": "on another broker: `jobbridge cutover --from URL` takes them over",
}


def verify(app: Celery, scope: Scope, report: Report, *, temporal: Any) -> None:
    """Write into the report what stays, and what does not agree.

    Args:
        temporal: The way to Temporal; None: it cannot be asked.

    Raises:
        EngineUnavailable: Temporal does not answer.
    """
    with app.database.connection() as connection:
        left = moves.counts(connection, scope.selection(scope.origin))
        report.waiting = moves.counts(connection, scope.selection(scope.to))
    unreadable = len(report.unreadable)
    report.staying.update(report.unreadable.values())
    note_staying(report, left)
    still = sum(count for why, count in left.items() if why in WAITING) - unreadable
    if still > 0:
        report.staying[
            "with a worker that has taken them, or sent since: they run there"
            if scope.to is Engine.TEMPORAL
            else "sent since, or under way: they run there"
        ] += still
    if unreadable:
        report.problems.append(f"{unreadable} job(s) could not be moved.")
    if scope.to is Engine.CELERY:
        amiss = _without_message(app, scope)
        if amiss:
            report.problems.append(f"{len(amiss)} job(s) wait without a message: {_some(amiss)}.")
    elif temporal is not None:
        amiss = _without_workflow(app, scope, temporal)
        if amiss:
            report.problems.append(f"{len(amiss)} job(s) wait without a workflow: {_some(amiss)}.")


def note_staying(report: Report, counts: Mapping[str, int]) -> None:
    """Write into the report which open jobs stay where they are whatever happens."""
    for status, why in _STAYING.items():
        if status in counts:
            report.staying[why] += counts[status]


def _pages(app: Celery, scope: Scope) -> list[list[MovableJob]]:
    pages: list[list[MovableJob]] = []
    place = moves.FIRST
    while True:
        with app.database.connection() as connection:
            page = moves.look(connection, scope.selection(scope.to), after=place, limit=_PAGE)
        if page:
            pages.append(page)
        if len(page) < _PAGE:
            return pages
        place = page[-1].place


def _without_message(app: Celery, scope: Scope) -> list[MovableJob]:
    amiss: list[MovableJob] = []
    for page in _pages(app, scope):
        with app.database.connection() as connection:
            found = headers_of(connection, [job.task_id for job in page])
        there = {(task_id, delivery_in(headers)) for task_id, headers, _ in found}
        amiss += [job for job in page if (job.task_id, str(job.delivery)) not in there]
    return _unchanged(app, amiss)


def _without_workflow(app: Celery, scope: Scope, temporal: Any) -> list[MovableJob]:
    from jobbridge.cutover.engines.workflows import missing

    amiss = [job for page in _pages(app, scope) for job in missing(app, temporal, page)]
    with app.database.connection() as connection:
        held = still_held(
            connection, [job.key.job_id for job in amiss]
        )  # the relay has them when a rule lets them go
    return _unchanged(app, [job for job in amiss if job.task_id not in held])


def _unchanged(app: Celery, jobs: Sequence[MovableJob]) -> list[MovableJob]:
    """Give those of which the row says the same still: the others have gone on between two looks."""
    if not jobs:
        return []
    with app.database.connection() as connection:
        now = moves.known(connection, [job.key.job_id for job in jobs])
    return [
        job
        for job in jobs
        if (row := now.get(job.task_id)) is not None
        and (row.status, row.delivery, row.attempt) == (job.status, job.delivery, job.attempt)
    ]


def _some(jobs: Sequence[MovableJob]) -> str:
    named = ", ".join(job.task_id for job in jobs[:_NAMED])
    return f"{named}, …" if len(jobs) > _NAMED else named

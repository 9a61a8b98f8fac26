"""From one engine to the other: schedules first, then what waits, batch by batch; then both sides are compared.

Killed at any point it is run again, and goes on: what is moved does not count as waiting any more (decision 0031).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobbridge.core.keys import Engine
from jobbridge.core.status import WAITING
from jobbridge.cutover.engines.jobs import Batch, move_batch
from jobbridge.cutover.engines.patience import patiently
from jobbridge.cutover.engines.schedules import move_schedules, tell_temporal
from jobbridge.cutover.engines.verify import note_staying, verify
from jobbridge.cutover.report import Report, Scope
from jobbridge.errors import ConfigurationError, EngineUnavailable
from jobbridge.store.moves import jobs as moves
from jobbridge.store.schedules.repository import NOW

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: What another transaction holds, or a worker gives back, is looked for again so often.
_PASSES = 5
_PAUSE = timedelta(milliseconds=200)
#: How long the relay of another process may have a job that this one waits for.
_RELAYED_WITHIN = timedelta(seconds=45)


def run(app: Celery, scope: Scope, *, progress: Callable[[int], object] = lambda moved: None) -> Report:
    """Move what is meant, and say what came of it.

    Args:
        app: Whose jobs.
        scope: Which.
        progress: Told after each batch how many jobs went so far.

    Raises:
        EngineUnavailable: Temporal is where they are to go, and cannot be reached. Nothing was moved.
        ConfigurationError: The broker is not in the jobs' database.
        DatabaseUnavailable: What was committed is moved; run it again.
    """
    _check_broker(app)
    report = Report()
    temporal = _temporal(app, scope, report)
    if temporal is not None:
        _end_left_behind(app, temporal, report)
    if scope.schedules:
        move_schedules(app, scope, report)
        if temporal is not None:
            patiently(lambda: tell_temporal(app, report))
    before = _now(app)
    for turn in range(_PASSES):
        if turn:
            time.sleep(_PAUSE.total_seconds())
        if not _pass(app, scope, before, temporal, report, progress) and turn:
            break
    if temporal is not None:
        if scope.to is Engine.TEMPORAL:
            _deliver_all(app)
        else:
            _end_left_behind(app, temporal, report)
    verify(app, scope, report, temporal=temporal)
    return report


def plan(app: Celery, scope: Scope) -> Report:
    """Say what `run` would move, and move nothing."""
    _check_broker(app)
    report = Report()
    with app.database.connection() as connection:
        counts = moves.counts(connection, scope.selection(scope.origin))
    report.waiting = {why: count for why, count in counts.items() if why in WAITING}
    note_staying(report, counts)
    if scope.schedules:
        report.schedules = len(
            [
                row
                for row in app.schedules.list(tenant=scope.tenant, engine=scope.origin)
                if scope.jobs is None or _matches(scope, row.task)
            ]
        )
    return report


def _pass(
    app: Celery,
    scope: Scope,
    before: datetime,
    temporal: Any,
    report: Report,
    progress: Callable[[int], object],
) -> int:
    """Go through all that waits, once; gives how many went."""
    moved = 0
    place = moves.FIRST
    while True:
        batch = move_batch(app, scope, before=before, after=place)
        report.moved.update(job.status.value for job in batch.moved)
        report.unreadable |= batch.unreadable
        moved += len(batch.moved)
        _follow_up(app, scope, batch, temporal, report)
        progress(report.moved.total())
        if batch.last is None:
            return moved
        place = batch.last


def _follow_up(app: Celery, scope: Scope, batch: Batch, temporal: Any, report: Report) -> None:
    """Do what Temporal is to do about a batch that is committed; what is left out is done at the end, or again."""
    if temporal is None or not batch.moved:
        return
    if scope.to is Engine.TEMPORAL:
        _relay(app).sweep(timedelta())
        return
    from jobbridge.cutover.engines.workflows import end_workflows, former_of

    report.ended += end_workflows(temporal, [former_of(job) for job in batch.moved])


def _end_left_behind(app: Celery, temporal: Any, report: Report) -> None:
    from jobbridge.cutover.engines.workflows import end_workflows, left_behind

    report.ended += end_workflows(temporal, left_behind(app, temporal))


def _relay(app: Celery) -> Any:
    from jobbridge.temporal.deliver.relay import Relay

    return Relay(app, app.delivery(Engine.TEMPORAL), is_held=lambda task_id: False)  # type: ignore[arg-type]


def _deliver_all(app: Celery) -> None:
    """Deliver what waits for the relay; what another one has taken, and lost, comes back within half a minute."""
    from jobbridge.store.jobs.open_jobs import has_undelivered

    relay = _relay(app)
    deadline = time.monotonic() + _RELAYED_WITHIN.total_seconds()
    while has_undelivered(app.database, older_than=timedelta()) and time.monotonic() < deadline:
        if not relay.sweep(timedelta()):
            time.sleep(_PAUSE.total_seconds())


def _temporal(app: Celery, scope: Scope, report: Report) -> Any:
    """Give the way to Temporal; None: it cannot be reached, and need not be for jobs to leave it."""
    try:
        delivery = app.delivery(Engine.TEMPORAL)
        delivery.prepare(asks=True)
        patiently(delivery.check, only_if_slow=True)
    except EngineUnavailable as error:
        if scope.to is Engine.TEMPORAL:
            raise
        report.notes.append(
            f"Temporal was not asked: {error} What it still has of these jobs is refused when it is due; run this"
            " again when it is back, and their workflows are ended."
        )
        return None
    return delivery


def _check_broker(app: Celery) -> None:
    if not app.shares_database_with_broker:
        raise ConfigurationError(
            "The broker is not in the database of the jobs, so messages and rows cannot move together.",
            hint="Set the broker to jobbridge+postgresql:// on DATABASE_URL;"
            " `jobbridge cutover --from URL` takes over what an old broker has.",
        )


def _now(app: Celery) -> datetime:
    with app.database.connection() as connection:
        [(now,)] = connection.execute(NOW).fetchall()
    found: datetime = now
    return found


def _matches(scope: Scope, name: str) -> bool:
    import re

    return scope.pattern is None or re.search(scope.pattern, name) is not None

"""Whether somebody runs what waits: handlers, queues and workers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import TYPE_CHECKING

from jobbridge.app.schedules.commands import queue_of
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.diagnosis.findings import Check, age, bad, good, some
from jobbridge.store.monitor.health import HealthStore, WaitingGroup
from jobbridge.store.schedules.repository import ScheduleStore
from jobbridge.store.schema_range import SchemaVersion, read_versions
from jobbridge.store.workers.queue_pauses import QueuePause, QueuePauses
from jobbridge.store.workers.workers import StuckWorker, WorkerRow

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: An engine takes what it is given within a second; what is `pending` longer waits for one that is not there.
_PATIENCE = timedelta(minutes=1)
#: A worker that got stuck longer ago is told of, and is no trouble any more.
_LATELY_STUCK = timedelta(hours=1)
#: Failures older than this are history.
_LATELY = timedelta(days=1)


def check_workers(app: Celery) -> list[Check]:
    """Look for queues that nobody serves, tasks that nobody knows, and jobs that no engine has accepted."""
    workers = app.workers.alive()
    health = HealthStore(app.database)
    waiting = health.waiting()
    paused = QueuePauses(app.database).all()
    left_alone = {pause.queue for pause in paused}  # by somebody's will: that nobody serves them is no fault
    accepted = [
        group for group in waiting if group.status is not JobStatus.PENDING and group.queue not in left_alone
    ]
    unserved = [group for group in accepted if not serving(workers, group.engine, group.queue)]
    return [
        _check_queues(workers, unserved),
        _check_known(
            [
                group
                for group in accepted
                if group not in unserved and not knowing(workers, group.engine, group.queue, group.task)
            ],
            [each.task for each in health.unknown_tasks(within=_LATELY) if not _is_known(workers, each.task)],
        ),
        _check_undelivered([group for group in waiting if group.status is JobStatus.PENDING]),
        *_stuck(app.workers.stuck()),
        *_paused(paused),
        *_unserved_releases(workers, app.database.run(read_versions)),
    ]


def check_schedules(app: Celery) -> list[Check]:
    """Look for schedules whose jobs nobody would run, and for some that nobody fires."""
    schedules = [row for row in ScheduleStore(app.database).list() if not row.paused]
    troubles, hints = list(app.schedules.refused()), set()
    if troubles:
        hints.add("Correct what the code declares; beat fires the others.")
    if not schedules and not troubles:
        return []
    workers = app.workers.alive()
    for row in schedules:
        queue = queue_of(app, row.task, row.queue)
        if not serving(workers, row.engine, queue):
            troubles.append(
                f"{row.name!r} fills the queue {queue!r}, which no worker of {row.engine.value} serves"
            )
            hints.add(start_hint(row.engine, [queue]))
        elif not knowing(workers, row.engine, queue, row.task):
            troubles.append(f"{row.name!r} sends {row.task!r}, which no worker knows")
            hints.add("Add the module that declares it to `include` of the worker's app.")
        if row.due_at is not None and row.due_at < datetime.now(UTC) - _PATIENCE:
            troubles.append(f"{row.name!r} was to fire {age(row.due_at)} ago, and did not")
            hints.add("Start a beat: `celery -A APP beat -S jobbridge`.")
        if row.mirror_error:
            troubles.append(f"{row.name!r} is not in Temporal: {row.mirror_error}")
            hints.add("See that a Temporal worker runs, and that it reaches Temporal.")
    told = f"{len(schedules)} that are not paused"
    if not troubles:
        return [good("schedules", told)]
    return [bad("schedules", f"{some(troubles)} ({told})", " ".join(sorted(hints)))]


def serving(workers: Sequence[WorkerRow], engine: Engine, queue: str) -> list[WorkerRow]:
    """Give the workers of that engine that serve the queue."""
    return [worker for worker in workers if worker.engine is engine and queue in worker.queues]


def knowing(workers: Sequence[WorkerRow], engine: Engine, queue: str, task: str) -> list[WorkerRow]:
    """Give those of them that know the task."""
    return [worker for worker in serving(workers, engine, queue) if task in worker.tasks]


def start_hint(engine: Engine, queues: Sequence[str] = ()) -> str:
    """Say how a worker of that engine is started."""
    command = "celery -A APP worker" if engine is Engine.CELERY else "jobbridge temporal-worker -A APP"
    return f"Start one: `{command}" + (f" -Q {quote(','.join(queues))}`." if queues else "`.")


def _check_queues(workers: Sequence[WorkerRow], unserved: Sequence[WaitingGroup]) -> Check:
    running = "; ".join(
        f"{worker.name} ({worker.engine.value}: {some(sorted(worker.queues))})" for worker in workers
    )
    if not unserved:
        return good("workers", running or "none runs, and nothing waits for one")
    waiting = "; ".join(
        f"{group.number} {group.task} ({group.engine.value}) in the queue {group.queue!r} for {age(group.since)}"
        for group in unserved[:5]
    )
    by_engine = {
        engine: sorted({group.queue for group in unserved if group.engine is engine}) for engine in Engine
    }
    return bad(
        "workers",
        f"no worker serves what waits: {waiting}. Running: {running or 'none'}",
        " ".join(start_hint(engine, queues) for engine, queues in by_engine.items() if queues),
    )


def _check_known(unknown: Sequence[WaitingGroup], refused: Sequence[str]) -> Check:
    if not unknown and not refused:
        return good("tasks", "a worker knows every task that waits")
    parts = [
        f"{group.number} {group.task!r} wait in {group.queue!r} ({group.engine.value})"
        for group in unknown[:5]
    ]
    if refused:
        parts.append(f"workers refused {some([repr(name) for name in refused])} within the last day")
    return bad(
        "tasks",
        f"no worker knows the handler: {'; '.join(parts)}",
        "Add the module that declares it to `include` (or `imports`) of the worker's app, and restart the worker; "
        "`jobbridge handlers list` shows what an app has.",
    )


def _stuck(workers: Sequence[StuckWorker]) -> list[Check]:
    if not workers:
        return []
    told = [
        f"{worker.name} (pid {worker.pid} on {worker.host}) ended itself {age(worker.noted_at)} ago: {worker.reason}"
        for worker in workers
    ]
    return [
        Check(
            name="stuck workers",
            is_good=workers[0].noted_at < datetime.now(UTC) - _LATELY_STUCK,
            found=some(told),
            hint="Its messages went to others. Its log has the stacks of all threads: see what the loop waited for.",
        )
    ]


def _paused(paused: Sequence[QueuePause]) -> list[Check]:
    if not paused:
        return []
    found = some([f"{pause.queue!r} {pause}" for pause in paused])
    return [good("paused queues", found)]


def _unserved_releases(workers: Sequence[WorkerRow], versions: Sequence[SchemaVersion]) -> list[Check]:
    since = max((version.serves_since or "" for version in versions), default="")
    ended = [f"{worker.name} (release {worker.release})" for worker in workers if worker.knows < since]
    if not ended:
        return []
    return [
        bad(
            "releases",
            f"the tables no longer serve the releases of these workers, which take nothing: {some(ended)}",
            "Stop them, and start workers of this release in their place.",
        )
    ]


def _is_known(workers: Sequence[WorkerRow], task: str) -> bool:
    return any(task in worker.tasks for worker in workers)


def _check_undelivered(pending: Sequence[WaitingGroup]) -> Check:
    late = [group for group in pending if group.since < datetime.now(UTC) - _PATIENCE]
    if not late:
        return good("delivery", "every job was delivered")
    told = ", ".join(
        f"{group.number} {group.engine.value} pending (the oldest: {age(group.since)} ago)" for group in late
    )
    return bad(
        "delivery",
        f"{told} that no engine has accepted",
        "Start a worker, or `jobbridge maintain`: its relay delivers them; see that it reaches the engine.",
    )

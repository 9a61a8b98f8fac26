"""The queues of both engines: what waits there, who serves them, and which are paused.

Nothing here reads a queue to its end, and nobody waits long for Temporal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.app.routing import keyed_queues
from jobbridge.broker import look_at_queues, queue_names
from jobbridge.core.keys import Engine
from jobbridge.errors import EngineUnavailable
from jobbridge.store.jobs.open_jobs import recent_queues
from jobbridge.store.workers.queue_pauses import QueuePause, QueuePauses
from jobbridge.store.workers.workers import WorkerRow

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Messages of a queue are counted so far: nobody needs to know more than "a lot".
COUNTED = 10_000
#: How long Temporal may take.
_PATIENCE = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """What waits in a queue on one engine.

    Attributes:
        ready: What a worker could take now; None: it is not known.
        later: What is not due yet, where the engine tells.
        oldest_at: Since when the first waits.
    """

    engine: Engine
    ready: int | None
    later: int | None = None
    oldest_at: datetime | None = None

    @property
    def is_more(self) -> bool:
        """Whether it was not counted to its end."""
        return self.ready is not None and self.engine is Engine.CELERY and self.ready > COUNTED


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """A queue, on whichever engines use it.

    Attributes:
        workers: The names of the living workers that serve it, by engine.
    """

    name: str
    waiting: Sequence[Waiting]
    workers: Sequence[tuple[Engine, str]]
    pause: QueuePause | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Queues:
    """A page of queues.

    Attributes:
        next: The name after which the next page begins; None: there is none.
        problem: Why it is not known, or not of all queues, what waits in Temporal.
    """

    queues: Sequence[Queue]
    next: str | None = None
    problem: str = ""


def look(
    app: Celery, workers: Sequence[WorkerRow], *, after: str = "", limit: int = 100, only_paused: bool = False
) -> Queues:
    """Give the queues that workers serve, that the broker has, that jobs lately used, or that are paused; by name.

    Args:
        app: Whose.
        workers: Those that live.
        after: The `next` of the page before.
        limit: At most so many.
        only_paused: Leave out the others.
    """
    pauses = {pause.queue: pause for pause in QueuePauses(app.database).all()}
    used = _used(app, workers)
    names = sorted(set(pauses) if only_paused else {name for _, name in used} | set(pauses))
    following = [name for name in names if name > after]
    shown = following[:limit]
    found, problem = _look_at(app, workers, shown, used, pauses)
    return Queues(queues=found, next=shown[-1] if len(following) > limit else None, problem=problem)


def look_at(app: Celery, workers: Sequence[WorkerRow], name: str) -> tuple[Queue, str]:
    """Give one queue, and why it is not known what waits in Temporal, if so.

    Args:
        app: Whose.
        workers: Those that live.
        name: The queue's; of one that nobody uses nothing waits.
    """
    pause = QueuePauses(app.database).get(name)
    pauses = {} if pause is None else {name: pause}
    [queue], problem = _look_at(app, workers, [name], _used(app, workers), pauses)
    return queue, problem


def why_unknown(app: Celery, workers: Sequence[WorkerRow], name: str) -> str | None:
    """Say so if nobody knows a queue of that name, and to which ones it leads if it is a routing key; else None.

    Args:
        app: Whose.
        workers: Those that live.
        name: What somebody takes for a queue's name.
    """
    if name in {queue for _, queue in _used(app, workers)} | set(app.amqp.queues):
        return None
    queues = keyed_queues(app, name)
    if queues:
        plural = "s" if len(queues) > 1 else ""
        return f"{name!r} is no queue but a routing key, of the queue{plural} {', '.join(map(repr, queues))}."
    return f"Nobody knows a queue {name!r}: no worker serves it, nothing waits there, and no job was there lately."


def unknown_pauses(app: Celery, workers: Sequence[WorkerRow], queues: Sequence[Queue]) -> dict[str, str]:
    """Say of which of these queues a pause stops nothing, for nobody knows them, and why.

    Args:
        app: Whose.
        workers: Those that live.
        queues: As they were looked at.
    """
    idle = [queue.name for queue in queues if queue.pause and not queue.workers]
    return {name: why for name in idle if (why := why_unknown(app, workers, name)) is not None}


def _look_at(
    app: Celery,
    workers: Sequence[WorkerRow],
    names: Sequence[str],
    used: set[tuple[Engine, str]],
    pauses: Mapping[str, QueuePause],
) -> tuple[list[Queue], str]:
    celery = _at_celery(app, names)
    temporal, problem = _at_temporal(app, [name for name in names if (Engine.TEMPORAL, name) in used])
    queues = [
        Queue(
            name=name,
            waiting=[*celery.get(name, ()), *([temporal[name]] if name in temporal else [])],
            workers=[(worker.engine, worker.name) for worker in workers if name in worker.queues],
            pause=pauses.get(name),
        )
        for name in names
    ]
    return queues, problem


def _used(app: Celery, workers: Sequence[WorkerRow]) -> set[tuple[Engine, str]]:
    used = {(worker.engine, queue) for worker in workers for queue in worker.queues}
    used |= {(Engine(engine), queue) for engine, queue in recent_queues(app.database)}
    if app.shares_database_with_broker:
        with app.database.connection() as connection:
            used |= {(Engine.CELERY, name) for name in queue_names(connection)}
    return used


def _at_celery(app: Celery, names: Sequence[str]) -> dict[str, Sequence[Waiting]]:
    if not names or not app.shares_database_with_broker:
        return {}
    with app.database.connection() as connection:
        found = look_at_queues(connection, names, limit=COUNTED + 1)
    return {
        each.queue: [
            Waiting(engine=Engine.CELERY, ready=each.ready, later=each.later, oldest_at=each.oldest_at)
        ]
        for each in found
    }


def _at_temporal(app: Celery, names: Sequence[str]) -> tuple[dict[str, Waiting], str]:
    if not names:
        return {}, ""
    try:
        from jobbridge.temporal.reconcile.backlogs import backlogs

        found = backlogs(app, names, patience=_PATIENCE)
    except (ImportError, EngineUnavailable) as error:
        return {name: Waiting(engine=Engine.TEMPORAL, ready=None) for name in names}, str(error)
    now = datetime.now(UTC)
    known = {
        name: Waiting(
            engine=Engine.TEMPORAL, ready=each.tasks, oldest_at=now - each.oldest if each.tasks else None
        )
        for name, each in found.items()
    }
    unknown = [name for name in names if name not in known]
    problem = (
        f"It has answered for {len(known)} of {len(names)} queues; look again for the others."
        if unknown
        else ""
    )
    return known | {name: Waiting(engine=Engine.TEMPORAL, ready=None) for name in unknown}, problem

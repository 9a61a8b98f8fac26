"""What will not work on the other engine, and why, told before anything is moved.

Asked are the rows that wait, the schedules, what the workers of the other side say that they know, and the app's code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from jobbridge.core.keys import Engine
from jobbridge.core.status import WAITING
from jobbridge.cutover.report import Scope
from jobbridge.errors import ConfigurationError, EngineUnavailable, UnsupportedOption
from jobbridge.store.moves import jobs as moves
from jobbridge.store.workers.queue_pauses import QueuePauses

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.store.moves.jobs import JobKind
    from jobbridge.store.schedules.rows import ScheduleRow
    from jobbridge.store.workers.workers import WorkerRow

_WAITING = {status.value for status in WAITING}
_TEMPORALS_PRIORITIES = "Temporal tells five apart: 8-9, 6-7, 4-5, 2-3, 0-1"


class Level(StrEnum):
    """How bad it is."""

    ERROR = "error"  # jobs would wait there for ever, or cannot go
    WARNING = "warning"  # something is different there
    NOTE = "note"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that will not work, or not the same."""

    level: Level
    what: str
    why: str
    hint: str = ""

    @property
    def is_error(self) -> bool:
        return self.level is Level.ERROR

    def to_json(self) -> dict[str, str]:
        """Give it for programs."""
        return {"level": self.level.value, "what": self.what, "why": self.why, "hint": self.hint}


def likely_target(app: Celery) -> Engine:
    """Give the engine that fewer waiting jobs have; Temporal, if both have none."""
    with app.database.connection() as connection:
        waiting = {
            engine: sum(
                count
                for status, count in moves.counts(connection, Scope(to=engine).selection(engine)).items()
                if status in _WAITING
            )
            for engine in Engine
        }
    return Engine.CELERY if waiting[Engine.TEMPORAL] > waiting[Engine.CELERY] else Engine.TEMPORAL


def check(app: Celery, scope: Scope) -> list[Finding]:
    """Look for what is in the way; the worst first.

    Raises:
        DatabaseUnavailable, DatabaseError: The tables cannot be asked.
    """
    with app.database.connection() as connection:
        kinds = moves.kinds(connection, scope.selection(scope.origin))
        counts = moves.counts(connection, scope.selection(scope.origin))
    schedules = [
        row
        for row in app.schedules.list(tenant=scope.tenant, engine=scope.origin)
        if scope.pattern is None or re.search(scope.pattern, row.task)
    ]
    workers = [worker for worker in app.workers.alive() if worker.engine is scope.to]
    found = [
        *_engine(app, scope),
        *_workers(app, scope, kinds, schedules, workers),
        *_tasks(app, scope, kinds),
        *_schedules(app, scope, schedules),
        *_paused(app, kinds),
        *_others(counts),
    ]
    order = list(Level)
    return sorted(found, key=lambda each: order.index(each.level))


def _engine(app: Celery, scope: Scope) -> Iterator[Finding]:
    if not app.shares_database_with_broker:
        yield Finding(
            level=Level.ERROR,
            what="the broker",
            why="it is not in the database of the jobs",
            hint="Set it to jobbridge+postgresql:// on DATABASE_URL, and run `jobbridge cutover --from` its old URL.",
        )
    try:
        delivery = app.delivery(Engine.TEMPORAL)
        delivery.prepare(asks=True)
        delivery.check()
    except (EngineUnavailable, ConfigurationError) as error:
        is_needed = scope.to is Engine.TEMPORAL
        yield Finding(
            level=Level.ERROR if is_needed else Level.WARNING,
            what="Temporal",
            why=str(error),
            hint=error.hint
            if is_needed
            else "Jobs can leave it all the same; run the cutover again when it is back, and it ends their workflows.",
        )


def _workers(
    app: Celery,
    scope: Scope,
    kinds: list[JobKind],
    schedules: list[ScheduleRow],
    workers: list[WorkerRow],
) -> Iterator[Finding]:
    from jobbridge.app.schedules.commands import queue_of

    wanted = {(kind.type, kind.queue): f"{kind.count} job(s) of {kind.type}" for kind in kinds}
    for row in schedules:
        queue = queue_of(app, row.task, row.queue)
        wanted.setdefault((row.task, queue), f"the schedule {row.name} of {row.task}")
    if not wanted:
        return
    if not workers:
        command = "jobbridge temporal-worker" if scope.to is Engine.TEMPORAL else "celery worker"
        yield Finding(
            level=Level.ERROR,
            what="workers",
            why=f"no {scope.to.value} worker runs: all would wait",
            hint=f"Start one: `{command} -A your.app`.",
        )
        return
    served = {queue for worker in workers for queue in worker.queues}
    known = {task for worker in workers for task in worker.tasks}
    for (task, queue), what in sorted(wanted.items()):
        if task not in known:
            yield Finding(
                level=Level.ERROR,
                what=what,
                why=f"no running {scope.to.value} worker knows this task",
                hint="Start one of the app that has it, or leave it out with --jobs.",
            )
        elif queue not in served:
            yield Finding(
                level=Level.ERROR,
                what=what,
                why=f"no running {scope.to.value} worker serves the queue {queue!r}",
                hint=f"Start one with -Q {queue}.",
            )
        elif not any(task in worker.tasks and queue in worker.queues for worker in workers):
            yield Finding(
                level=Level.ERROR,
                what=what,
                why=f"those {scope.to.value} workers that serve the queue {queue!r} do not know the task",
                hint=f"Start one of the app that has it with -Q {queue}.",
            )


def _tasks(app: Celery, scope: Scope, kinds: list[JobKind]) -> Iterator[Finding]:
    for name in sorted({kind.type for kind in kinds}):
        task = app.tasks.get(name)
        engine = getattr(task, "engine", None)
        if engine and _engine_named(engine) is not scope.to:
            yield Finding(
                level=Level.WARNING,
                what=name,
                why=f"its code says engine={str(engine)!r}: what is sent after the move goes there still",
                hint="Change it in the code.",
            )
        if getattr(task, "temporal_light", None):
            yield Finding(
                level=Level.NOTE,
                what=name,
                why="light delivery: there is no workflow to signal or to query"
                if scope.to is Engine.TEMPORAL
                else "light delivery means nothing on celery, and a caller who asks for it there is refused",
            )
    default = app.default_engine
    if kinds and default is not scope.to:
        yield Finding(
            level=Level.WARNING,
            what="JOB_RUNNER_TYPE",
            why=f"it is {default.value} here: what is sent after the move, and names no engine, goes there still",
            hint=f"Set it to {scope.to.value} for all who send, then move.",
        )
    priorities = sorted({priority for kind in kinds for priority in kind.priorities})
    if scope.to is Engine.TEMPORAL and len({priority // 2 for priority in priorities}) < len(priorities):
        yield Finding(
            level=Level.NOTE,
            what="priorities",
            why=f"{', '.join(map(str, priorities))} are in use; {_TEMPORALS_PRIORITIES}",
        )
    yield from _serializers(app, scope)


def _serializers(app: Celery, scope: Scope) -> Iterator[Finding]:
    """Look at some of the messages that would go."""
    from jobbridge.cutover.look import forms_of_messages

    forms = forms_of_messages(app, scope)
    for content_type, count in sorted(forms.content_types.items()):
        if content_type not in forms.accepted:
            yield Finding(
                level=Level.ERROR,
                what=f"{count} job(s) sent as {content_type}",
                why="accept_content of this app does not name it: a worker of either engine refuses them",
                hint="Add it to accept_content.",
            )
        elif content_type != "application/json" and scope.to is Engine.TEMPORAL:
            yield Finding(
                level=Level.NOTE,
                what=f"{count} job(s) sent as {content_type}",
                why="Temporal carries them as they are, and its UI does not show their arguments",
            )
    if forms.large and scope.to is Engine.TEMPORAL:
        yield Finding(
            level=Level.NOTE,
            what=f"{forms.large} job(s) of more than {forms.limit // 1024} kB",
            why="their arguments stay in the row, and Temporal has a reference",
        )
    if forms.without_message:
        yield Finding(
            level=Level.WARNING,
            what=f"{forms.without_message} job(s)",
            why="their row has no message (a client of Temporal's own started them): they end where they are",
        )


def _schedules(app: Celery, scope: Scope, schedules: list[ScheduleRow]) -> Iterator[Finding]:
    for row in schedules:
        if row.buffered_fire_at is not None:
            yield Finding(
                level=Level.WARNING,
                what=f"the schedule {row.name}",
                why="one of its fires waits for an earlier job to end, so it stays until then",
            )
        if row.declared_by is not None and _declared_engine(app, row) is not scope.to:
            yield Finding(
                level=Level.WARNING,
                what=f"the schedule {row.name}",
                why="code declares it, and the next beat that starts moves it back",
                hint=f"Set JOB_RUNNER_TYPE={scope.to.value} (or the task's engine) for beat, and start it anew.",
            )
    if schedules and scope.to is Engine.CELERY:
        yield Finding(
            level=Level.NOTE,
            what=f"{len(schedules)} schedule(s)",
            why="on celery a beat fires them: `celery -A your.app beat`, or a worker with -B",
        )


def _declared_engine(app: Celery, row: ScheduleRow) -> Engine | None:
    own = getattr(app.tasks.get(row.task), "engine", None)
    return _engine_named(own) if own else app.default_engine


def _engine_named(value: Any) -> Engine | None:
    try:
        return Engine.parse(str(value))
    except (ValueError, UnsupportedOption):
        return None


def _paused(app: Celery, kinds: list[JobKind]) -> Iterator[Finding]:
    used = {kind.queue for kind in kinds}
    for pause in QueuePauses(app.database).all():
        if pause.queue in used:
            yield Finding(
                level=Level.NOTE,
                what=f"the queue {pause.queue}",
                why="it is paused, and stays so on both engines",
            )


def _others(counts: dict[str, int]) -> Iterator[Finding]:
    why = {
        "processing": "they run, and end where they are",
        "waits for others": "they wait for children, or for the chain that took their place, and end where they are",
        "on another broker": "their messages are there: `jobbridge cutover --from URL` takes them over",
    }
    for status, count in counts.items():
        if status in why:
            yield Finding(level=Level.NOTE, what=f"{count} job(s)", why=why[status])

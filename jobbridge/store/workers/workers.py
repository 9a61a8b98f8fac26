"""Which workers there are, whether they live, and what they can run.

A worker process has a number, which is written into each job that it starts, and a row. Whether it lives is said by
`jobbridge.postgres.presence`: no clock, so a worker that is busy, paused or slow is never taken for dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, LiteralString

from jobbridge.core.keys import Engine
from jobbridge.postgres import presence
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.locks import WORKERS
from jobbridge.postgres.presence import Verdict, verdict
from jobbridge.store.database import CallersConnection, Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.schema_range import KNOWN_TO_0_1_0

#: Again and again: somebody may have taken the row away meanwhile. With the proof, so that a worker costs one
#: statement.
REGISTER: LiteralString = f"""
WITH {presence.RENEWED}
INSERT INTO public.job_workers (number, name, engine, host, pid, queues, tasks, sends_to, release, knows)
VALUES (
    %(number)s, %(name)s, %(engine)s, %(host)s, %(pid)s, %(queues)s, %(tasks)s, %(sends_to)s, %(release)s, %(knows)s
)
ON CONFLICT (number) DO UPDATE SET queues = excluded.queues, tasks = excluded.tasks, seen_at = now()
"""

UNREGISTER: LiteralString = "DELETE FROM public.job_workers WHERE number = ANY(%(numbers)s)"

LIST: LiteralString = """
SELECT number, name, engine, host, pid, queues, tasks, sends_to, started_at, seen_at, release, knows,
    NOT pg_try_advisory_xact_lock_shared(%(workers)s + number) AS is_alive
FROM public.job_workers
ORDER BY started_at, number
"""

#: Who lives, and what their releases know; also where the columns that say so are still to be made.
RELEASES: LiteralString = """
SELECT name, to_jsonb(worker) ->> 'release', to_jsonb(worker) ->> 'knows'
FROM public.job_workers AS worker
WHERE NOT pg_try_advisory_xact_lock_shared(%(workers)s + number)
ORDER BY name
"""

#: What was noted of a worker that ended itself; and what is older than a day goes.
NOTE_STUCK: LiteralString = """
WITH forgotten AS (DELETE FROM public.job_stuck_workers WHERE noted_at < now() - interval '1 day')
INSERT INTO public.job_stuck_workers (number, name, host, pid, reason)
VALUES (%(number)s, %(name)s, %(host)s, %(pid)s, %(reason)s)
ON CONFLICT (number) DO UPDATE SET reason = excluded.reason, noted_at = now()
"""

LIST_STUCK: LiteralString = """
SELECT name, host, pid, reason, noted_at
FROM public.job_stuck_workers
WHERE noted_at >= now() - interval '1 day'
ORDER BY noted_at DESC
LIMIT 100
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRow:
    """A worker process.

    Attributes:
        number: What its jobs carry as `worker_number`.
        name: Celery's node name.
        queues: Celery's names of the queues that it serves.
        tasks: The names of the tasks that it knows.
        sends_to: The engine that its settings choose for messages that name none.
        seen_at: When it last wrote this row: once a minute.
        is_alive: The process, or one of its pool's children, is there.
        release: Of jobbridge.
        knows: The newest revision of the tables that its release knows.
    """

    number: int
    name: str
    engine: Engine
    host: str
    pid: int
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    sends_to: Engine
    started_at: datetime
    seen_at: datetime
    is_alive: bool
    release: str
    knows: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StuckWorker:
    """A worker that ended itself because its loop had died or hung."""

    name: str
    host: str
    pid: int
    reason: str
    noted_at: datetime


class WorkerStore:
    """Questions about workers.

    Args:
        database: Where their rows are.
        grace: After a restart of Postgres of which no sweeper has noticed yet, nobody counts as dead for so long.
    """

    def __init__(self, database: Database, *, grace: timedelta = presence.GRACE) -> None:
        self._database = database
        self._grace = grace

    def all(self, connection: CallersConnection | None = None) -> Sequence[WorkerRow]:
        """Give the workers that have a row, oldest first; the dead until somebody has looked after their jobs."""

        def fetch(own: DriverConnection) -> list[WorkerRow]:
            rows = all_rows(own, _worker_row, LIST, {"workers": WORKERS})
            doubtful = [row.number for row in rows if not row.is_alive]
            seen = self._judged(own, doubtful, Verdict.ALIVE) if doubtful else set()
            return [replace(row, is_alive=row.is_alive or row.number in seen) for row in rows]

        return self._database.run(fetch) if connection is None else fetch(self._database.beneath(connection))

    def alive(self, connection: CallersConnection | None = None) -> Sequence[WorkerRow]:
        """Give the workers that run now."""
        return [worker for worker in self.all(connection) if worker.is_alive]

    def who_can_run(
        self, task: str, *, queue: str | None = None, engine: Engine | None = None
    ) -> Sequence[WorkerRow]:
        """Give the running workers that know the task, serve the queue and belong to the engine; None: whichever."""
        return [
            worker
            for worker in self.alive()
            if task in worker.tasks
            and (queue is None or queue in worker.queues)
            and (engine is None or engine is worker.engine)
        ]

    def queues_served(self) -> set[tuple[Engine, str]]:
        """Name the queues that some running worker serves."""
        return {(worker.engine, queue) for worker in self.alive() for queue in worker.queues}

    def dead_among(self, numbers: Sequence[int]) -> set[int]:
        """Tell which of these workers are gone, as far as one look tells."""
        return self._database.run(lambda own: self._judged(own, numbers, Verdict.DEAD))

    def _judged(self, own: DriverConnection, numbers: Sequence[int], judged: Verdict) -> set[int]:
        suspects = presence.ask(own, numbers, grace=self._grace)
        return {suspect.number for suspect in suspects if verdict(suspect) is judged}

    def stuck(self) -> Sequence[StuckWorker]:
        """Give the workers that ended themselves within a day, the last one first."""
        return self._database.run(lambda own: all_rows(own, StuckWorker, LIST_STUCK))

    def remove(self, numbers: Sequence[int]) -> None:
        """Take away the rows of workers that are gone."""
        self._database.run(lambda own: own.execute(UNREGISTER, {"numbers": list(numbers)}))


def _worker_row(**columns: Any) -> WorkerRow:
    lists = {name: tuple(columns[name]) for name in ("queues", "tasks")}
    engines = {name: Engine(columns[name]) for name in ("engine", "sends_to")}
    release = {"release": columns["release"] or "0.1.0", "knows": columns["knows"] or KNOWN_TO_0_1_0["core"]}
    return WorkerRow(**columns | lists | engines | release)

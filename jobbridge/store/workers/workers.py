"""Which workers there are, whether they live, and what they can run.

A worker process takes a number, writes a row, and holds a lock on the number (see `locks`). The lock tells whether
it lives: no clock, so a worker that is busy, paused or slow is never taken for dead. The number is drawn at random,
so that a worker has one before it reaches Postgres; it is written into each job that the worker starts.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg.rows import kwargs_row

from jobbridge.core.keys import Engine
from jobbridge.postgres.caller_connection import DriverConnection, driver_connection
from jobbridge.store.database import CallersConnection, Database

#: Numbers are locked under this base, so that they meet no other advisory lock.
LOCK_BASE = 0x4A57 << 48
#: A worker that lost its session to a restart of Postgres has it again by then.
GRACE = timedelta(seconds=30)

# Shared, so that two who ask do not take each other for the worker; given back at the end of the statement.
_IS_FREE: LiteralString = "pg_try_advisory_xact_lock_shared(%(base)s + number)"

#: False while the same number is still held by a session of ours that the server has not given up.
LOCK: LiteralString = "SELECT pg_try_advisory_lock(%(base)s + %(number)s)"

#: Again after a lost session: somebody may have taken the row away meanwhile.
REGISTER: LiteralString = """
INSERT INTO public.job_workers (number, name, engine, host, pid, queues, tasks, sends_to)
VALUES (%(number)s, %(name)s, %(engine)s, %(host)s, %(pid)s, %(queues)s, %(tasks)s, %(sends_to)s)
ON CONFLICT (number) DO UPDATE SET queues = excluded.queues, tasks = excluded.tasks, seen_at = now()
"""

UNREGISTER: LiteralString = "DELETE FROM public.job_workers WHERE number = ANY(%(numbers)s)"

LIST: LiteralString = f"""
SELECT number, name, engine, host, pid, queues, tasks, sends_to, started_at, seen_at, NOT {_IS_FREE} AS is_alive
FROM public.job_workers
ORDER BY started_at, number
"""

#: Whose lock is free. After a restart of Postgres everybody's is at first: nobody counts as dead until all had time
#: to come back.
DEAD: LiteralString = """
SELECT number
FROM unnest(%(numbers)s::bigint[]) AS asked (number)
WHERE statement_timestamp() >= pg_postmaster_start_time() + %(grace)s::interval
    AND pg_try_advisory_xact_lock_shared(%(base)s + number)
"""


def draw_number() -> int:
    """Give a number that no other worker has."""
    return secrets.randbits(47) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRow:
    """A worker process.

    Attributes:
        number: What its jobs carry as `worker_number`.
        name: Celery's node name.
        queues: Celery's names of the queues that it serves.
        tasks: The names of the tasks that it knows.
        sends_to: The engine that its settings choose for messages that name none.
        seen_at: When it last wrote this row: twice a minute.
        is_alive: The process, or one of its pool's children, is there.
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


class WorkerStore:
    """Questions about workers.

    Args:
        database: Where their rows are.
        grace: After a restart of Postgres nobody counts as dead for so long.
    """

    def __init__(self, database: Database, *, grace: timedelta = GRACE) -> None:
        self._database = database
        self._grace = grace

    def all(self, connection: CallersConnection | None = None) -> Sequence[WorkerRow]:
        """Give the workers that have a row, oldest first; the dead until somebody has looked after their jobs."""

        def fetch(own: DriverConnection) -> list[WorkerRow]:
            with psycopg.Cursor(own, row_factory=kwargs_row(_worker_row)) as cursor:
                return cursor.execute(LIST, {"base": LOCK_BASE}).fetchall()

        return self._database.run(fetch) if connection is None else fetch(driver_connection(connection))

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
        """Tell which of these workers are gone; nobody, for half a minute after a restart of Postgres."""
        params = {"numbers": list(numbers), "base": LOCK_BASE, "grace": self._grace}
        return {number for (number,) in self._database.run(lambda own: own.execute(DEAD, params).fetchall())}

    def remove(self, numbers: Sequence[int]) -> None:
        """Take away the rows of workers that are gone."""
        self._database.run(lambda own: own.execute(UNREGISTER, {"numbers": list(numbers)}))


def _worker_row(**columns: Any) -> WorkerRow:
    lists = {name: tuple(columns[name]) for name in ("queues", "tasks")}
    return WorkerRow(
        **columns | lists | {"engine": Engine(columns["engine"]), "sends_to": Engine(columns["sends_to"])}
    )

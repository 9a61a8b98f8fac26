"""Queues that are paused: workers of both engines take nothing new from them until they are resumed.

A pause is a row, so it lasts whatever starts or stops. Workers are told of a change by NOTIFY, and look for themselves
every few seconds, for who was away is told nothing (`jobbridge.app.worker.paused_queues`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

import psycopg

from jobbridge.errors import DatabaseError, UnsupportedOption
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database, refusal
from jobbridge.store.fetch import all_rows, first_row
from jobbridge.store.schema_range import misfit, version_of

CHANNEL = "jobbridge_queues"
#: Of a queue's name, and of a note.
_LONGEST = 255
_LONGEST_NOTE = 1000

LISTEN: LiteralString = "LISTEN jobbridge_queues"

#: A queue that is paused already stays so since when it was; only who and why are new.
PAUSE: LiteralString = """
INSERT INTO public.job_queue_pauses (queue, paused_by, note) VALUES (%(queue)s, %(paused_by)s, %(note)s)
ON CONFLICT (queue) DO UPDATE SET paused_by = excluded.paused_by, note = excluded.note
RETURNING (xmax = 0) AS is_new
"""

RESUME: LiteralString = "DELETE FROM public.job_queue_pauses WHERE queue = %(queue)s"

#: Told when the transaction commits.
TELL: LiteralString = "SELECT pg_notify('jobbridge_queues', '')"

#: Few: people pause queues one by one.
LIST: LiteralString = """
SELECT queue, paused_at, paused_by, note FROM public.job_queue_pauses ORDER BY queue LIMIT 10000
"""

#: What may keep a worker from taking messages: the names that are paused, and what tells whether the tables serve it.
OBSTACLES: LiteralString = """
SELECT
    ARRAY(SELECT queue FROM public.job_queue_pauses LIMIT 10000),
    ARRAY(SELECT to_jsonb(version) FROM public.jobbridge_version AS version)
"""

ONE: LiteralString = """
SELECT queue, paused_at, paused_by, note FROM public.job_queue_pauses WHERE queue = %(queue)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuePause:
    """That a queue is paused, since when, by whom, and why."""

    queue: str
    paused_at: datetime
    paused_by: str | None
    note: str | None

    def __str__(self) -> str:
        by = f" by {self.paused_by}" if self.paused_by else ""
        why = f" ({self.note})" if self.note else ""
        return f"since {self.paused_at.isoformat(sep=' ', timespec='seconds')}{by}{why}"


class QueuePauses:
    """Pauses queues, and tells which are.

    Args:
        database: Where that is written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def pause(self, queue: str, *, by: str | None = None, note: str | None = None) -> bool:
        """Have no worker take anything new from a queue; False when it was paused before.

        Raises:
            UnsupportedOption: There can be no such queue, or the note is too long.
        """
        _check(queue, note)
        params = {"queue": queue, "paused_by": by, "note": note}

        def write(own: DriverConnection) -> bool:
            with own.transaction():
                row = own.execute(PAUSE, params).fetchone()
                own.execute(TELL)
            return row is not None and bool(row[0])

        return self._database.run(write)

    def resume(self, queue: str) -> bool:
        """Have workers take from it again; False when it was not paused."""
        if "\0" in queue:
            return False

        def write(own: DriverConnection) -> bool:
            with own.transaction():
                was_paused = own.execute(RESUME, {"queue": queue}).rowcount > 0
                own.execute(TELL)
            return was_paused

        return self._database.run(write)

    def all(self) -> Sequence[QueuePause]:
        """Give the queues that are paused, by name."""
        return self._database.run(_listed)

    def get(self, queue: str) -> QueuePause | None:
        """Give the pause of one queue, if it is paused."""
        return self._database.run(lambda own: first_row(own, QueuePause, ONE, {"queue": queue}))


def tell_workers(database: Database) -> None:
    """Have all workers look which queues they may serve: one of them has not heard of a change."""
    database.run(lambda own: own.execute(TELL), check_schema=False)


def find_obstacles(connection: DriverConnection) -> tuple[frozenset[str], DatabaseError | None]:
    """Name the queues that are paused, and say why the tables do not serve this release, if so."""
    try:
        [(names, rows)] = connection.execute(OBSTACLES).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        return frozenset(), refusal(error)
    return frozenset(names), misfit(map(version_of, rows), connection.info.dbname)


def _listed(own: DriverConnection) -> list[QueuePause]:
    return all_rows(own, QueuePause, LIST)


def _check(queue: str, note: str | None) -> None:
    if not queue.strip() or "\0" in queue or len(queue) > _LONGEST:
        raise UnsupportedOption(
            f"There can be no queue {queue[:_LONGEST]!r}.",
            hint=f"Name one, with at most {_LONGEST} characters.",
        )
    if note is not None and ("\0" in note or len(note) > _LONGEST_NOTE):
        raise UnsupportedOption(
            "The note cannot be stored.", hint=f"Write at most {_LONGEST_NOTE:,} characters, without U+0000."
        )

"""Jobs that are collected, and written with their messages in few statements.

What is sent inside a block waits until a portion is full, or the block ends. A portion is one statement, so its rows
and messages are there together or not at all. What if the process dies between two portions? Those that were written
are sent, the others are not, and nobody was told that they were: the block has not ended. Twice: a portion whose commit
went through unseen is written again, finds its own deliveries in the rows, and adds nothing. Messages without rows are
a statement of their own, written after the rows of their portion.

Only new jobs wait. A retry or a replacement, a job with a singleton key, and one that is sent on another connection
than the block's go their own way at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.app.publish.delivery import log_duplicate
from jobbridge.app.publish.direct import store
from jobbridge.broker import PUBLISH_MANY, Parcel, Parcels
from jobbridge.core.events import Submitted
from jobbridge.errors import EngineUnavailable
from jobbridge.recording import PlainJob

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.publish.delivery import Delivery
    from jobbridge.postgres.caller_connection import DriverConnection

#: Jobs in one statement: more is hardly faster, and takes longer until the first is seen.
PORTION = 500
#: Characters of their messages: large ones make smaller portions.
PORTION_SIZE = 4 * 1024 * 1024


class Bulk:
    """What one block collects. For one thread.

    Args:
        app: Whose jobs.
        portion: At most so many jobs are written at a time.
        is_asked_for: By whoever sends; not, for the members of a group.
    """

    def __init__(self, app: Celery, *, portion: int = PORTION, is_asked_for: bool = True) -> None:
        self._app = app
        self._portion = portion
        self.is_asked_for = is_asked_for
        self._is_reached: bool | None = True if is_asked_for else None
        self._caller = app.caller_connection
        self._savepoints = savepoints_of(self._caller)
        self._waiting: dict[UUID, tuple[Submitted | PlainJob, Parcel | None]] = {}
        self._untracked: list[Parcel] = []
        self._size = 0
        self._repeating: Callable[[Callable[[Any], None]], None] | None = None

    def is_on(self, connection: object) -> bool:
        """Whether it writes in that transaction of the caller's, and in its part of it; None: in its own."""
        return connection is self._caller and savepoints_of(connection) == self._savepoints

    def reaches(self, delivery: Delivery) -> bool:
        """Whether the relay is to start its jobs: always in a block that was asked for.

        Of a group, if the other engine answered when the first of them came. If it did not, each goes its own way,
        which may lead to this engine.
        """
        if self._is_reached is None:
            try:
                delivery.check()
                self._is_reached = True
            except EngineUnavailable:
                self._is_reached = False
        return self._is_reached

    def takes(self, submitted: Submitted) -> bool:
        """Whether this job may wait here."""
        return (
            submitted.continues is None
            and submitted.singleton_key is None
            and self.is_on(self._app.caller_connection)
            and submitted.key.job_id not in self._waiting
        )

    def takes_plain(self, job_id: UUID) -> bool:
        """Whether a plain new job may wait here."""
        return self.is_on(self._app.caller_connection) and job_id not in self._waiting

    def add_plain(
        self, job: PlainJob, parcel: Parcel, repeating: Callable[[Callable[[Any], None]], None]
    ) -> None:
        """Keep it for the next portion, as `add`."""
        self._make_room(repeating)
        self._waiting[job.params["job_id"]] = (job, parcel)
        self._size += len(job.params["body"])

    def add(
        self, submitted: Submitted, parcel: Parcel | None, repeating: Callable[[Callable[[Any], None]], None]
    ) -> None:
        """Keep it for the next portion; the one before is written first if it is full.

        Args:
            submitted: A new job.
            parcel: Its message; None: the row has it.
            repeating: How to try again while Postgres is away.
        """
        self._make_room(repeating)
        self._waiting[submitted.key.job_id] = (submitted, parcel)
        self._size += len(parcel.parameters["body"]) if parcel is not None else len(str(submitted.message))

    def add_untracked(self, parcel: Parcel, repeating: Callable[[Callable[[Any], None]], None]) -> None:
        """Keep a message that has no row, likewise."""
        self._make_room(repeating)
        self._untracked.append(parcel)
        self._size += len(parcel.parameters["body"])

    def _make_room(self, repeating: Callable[[Callable[[Any], None]], None]) -> None:
        self._repeating = repeating
        if len(self._waiting) + len(self._untracked) >= self._portion or self._size >= PORTION_SIZE:
            repeating(lambda _: self.flush())

    def finish(self) -> None:
        """Write the rest; while Postgres is away, again as the last job's options say.

        Raises:
            DatabaseUnavailable: It stays away.
        """
        if self._repeating is not None:
            self._repeating(lambda _: self.flush())

    def flush(self) -> None:
        """Write what waits.

        Raises:
            DatabaseUnavailable: Postgres is away; what waits is kept.
        """
        connection = None if self._caller is None else self._app.database.on(self._caller)
        made = self._write(connection)
        for job_id, (waiting, parcel) in self._waiting.items():
            if job_id not in made:  # there is a row: one that may be sent again, or not, or this very one
                submitted = _event(waiting)
                recorded = self._app.recorder.record(submitted, connection, parcel=parcel)
                if not recorded.applied and recorded.outcome != "repeated":
                    log_duplicate(submitted.key, recorded.reason)
        self._waiting.clear()
        if self._untracked:  # last, for they have no rows by which a second try would know the first
            store(
                self._app, PUBLISH_MANY, Parcels.of([(None, parcel) for parcel in self._untracked]).parameters
            )
        self._untracked.clear()
        self._size = 0

    def _write(self, connection: DriverConnection | None) -> set[UUID]:
        """Write what waits as one statement; a second one has what has its message in the row."""
        recorder, waiting = self._app.recorder, self._waiting.values()
        plain = [job for job, _ in waiting if isinstance(job, PlainJob)]
        if plain and len(plain) == len(waiting):
            return recorder.submit_plain(plain, Parcels.timeless([job.params for job in plain]), connection)
        jobs = [(_event(job), parcel) for job, parcel in waiting]
        with_message = [(job, parcel) for job, parcel in jobs if parcel is not None]
        in_row = [job for job, parcel in jobs if parcel is None]
        made: set[UUID] = set()
        if with_message:
            parcels = Parcels.of([(job.key.job_id, parcel) for job, parcel in with_message])
            made |= recorder.submit_many([job for job, _ in with_message], parcels, connection)
        if in_row:
            made |= recorder.submit_many(in_row, None, connection)
        return made


def _event(job: Submitted | PlainJob) -> Submitted:
    return job.made() if isinstance(job, PlainJob) else job


def savepoints_of(connection: Any) -> int:
    """Count the blocks within the caller's transaction: what is sent in an inner one goes with that, if it rolls back.

    Args:
        connection: As for `transaction`.
    """
    for name in ("sync_session", "sync_connection"):  # SQLAlchemy's asynchronous ones
        connection = getattr(connection, name, None) or connection
    if (django := getattr(connection, "savepoint_ids", None)) is not None:
        return len(django)
    if (psycopg := getattr(connection, "_num_transactions", None)) is not None:
        return int(psycopg)
    count, nested = 0, getattr(connection, "get_nested_transaction", lambda: None)()
    while nested is not None and getattr(nested, "nested", True):
        # Of a session's, its parent; of a connection's, the one that it was begun in.
        count, nested = (
            count + 1,
            getattr(nested, "parent", None) or getattr(nested, "_previous_nested", None),
        )
    return count

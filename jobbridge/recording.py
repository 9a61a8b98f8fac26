"""The recorder: the only writer of job status.

Each event is one statement, guarded by the status, attempt and delivery that it speaks of: it applies as a whole, with
the attempt's step in `job_details`, or changes nothing. What a crash *between* events leaves, and who goes on from it:

- after Submitted, before the engine has it: cannot be on CE (the message is in the same transaction); on EE the row
  keeps its message and `undelivered_since`, and the relay delivers it.
- after the engine took it, before Accepted: the relay delivers once more; the workflow id is the job id, so nothing
  starts twice, and Accepted comes then. If Started was faster, Accepted only adds the ids.
- after Started, before the end (the worker was killed): it is delivered again; Started applies from `processing`, takes
  the next attempt number, and closes the lost attempt's step. What a worker that was only thought dead says is refused.
- after Completed, before the message is acknowledged: the message comes again, and Started is refused because the job
  is final. It does not run twice.
- after a retry's Submitted, before AttemptFailed: the row is right; the open step is closed by the next start.
- the connection is lost while an event commits: it is recorded once more. If the first time counted, the second is
  refused, and the row's state (its delivery, its attempt) shows that it is as the event wanted; `applied` is then true.
- Temporal could not be reached, before or within FellBack: the row is `pending` by the old delivery, and the relay
  delivers it. After: the broker has the message, in the same transaction, and the old delivery does not start.
- after AwaitsChildren, before its children run: they were made in the same transaction. Its old message comes again
  and is refused, since the row has no delivery.
- no row at all (sent by a foreign client, or the books were down): Started and Failed make it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID, uuid4

import psycopg

from jobbridge.codec.rows import seal_event
from jobbridge.core import events
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.machine import JobState, decide, is_as_left
from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.prepared import prepared
from jobbridge.store.database import CallersConnection, Database, refusal
from jobbridge.store.jobs import batches, submit, transitions
from jobbridge.store.jobs.admission import gone_holder, is_paused, one_row, suspension_of
from jobbridge.store.jobs.statements import statement_of
from jobbridge.store.jobs.submit import PlainJob as PlainJob

if TYPE_CHECKING:
    from jobbridge.broker import Parcel, Parcels

_log = logging.getLogger(__name__)
_Params = dict[str, Any]


class JobRecorder:
    """Applies job events to the tables.

    Args:
        database: Where the tables are.
        on_child_ended: Told of the parent when one of its children has ended, after that was committed.
        on_chord_due: Told of a chord when it waits for nothing any more, after that was committed.

    Attributes:
        refused: How many events were refused since this process began, by kind.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_child_ended: Callable[[JobKey], object] | None = None,
        on_chord_due: Callable[[str], object] | None = None,
    ) -> None:
        self.database = database
        self.refused: Counter[str] = Counter()
        self._on_child_ended = on_child_ended
        self._on_chord_due = on_chord_due

    def record(
        self,
        event: events.JobEvent,
        connection: CallersConnection | None = None,
        *,
        check_schema: bool = True,
        parcel: Parcel | None = None,
        is_new: bool = False,
    ) -> events.Recorded:
        """Apply one event, in one round trip.

        Args:
            event: What happened.
            connection: Record within this connection's transaction; else at once, in one of its own.
            check_schema: False: try it even where the tables no longer serve this release.
            parcel: The message of what is submitted, to be stored in the same statement if that applies.
            is_new: Nobody can know the job's id yet.

        Raises:
            DatabaseUnavailable: Postgres cannot be reached, also when tried once more. Safe to retry.
            NotMigrated: The tables are missing, or older than this release works on.
            SchemaTooNew: They no longer serve it.
            DatabaseError: Postgres refused the statement. Within the caller's transaction, psycopg's own error
                passes: that transaction is over.
        """
        event = seal_event(self.database.codec, event)
        if connection is None:
            recorded = self.database.run(
                lambda own: apply(own, event, parcel=parcel, prepare=True, is_new=is_new),
                again=lambda own: apply(own, event, is_repeated=True, parcel=parcel, prepare=True),
                check_schema=check_schema,
            )
        else:
            recorded = _apply_for_caller(self.database.beneath(connection), event, parcel)
        if not recorded.applied:
            self._count_refusal(event, recorded)
            if recorded.status is JobStatus.CANCELLED and isinstance(event, _LAST_WORDS):
                self.note_stopped(event.key, attempt=event.attempt, connection=connection)
        if connection is None:
            # In a caller's transaction nothing is certain yet: it calls this itself, or the sweeps see to it.
            self.attend(recorded)
        return recorded

    def record_plain(self, job: PlainJob, parcel: Parcel) -> events.Recorded:
        """Make a plain new job with its message; raises as `record` does."""

        def insert(own: DriverConnection) -> events.Recorded:
            is_made = submit.insert_plain(own, job, parcel.last)
            return _PLAINLY_MADE if is_made else apply(own, job.made(), parcel=parcel, prepare=True)

        recorded = self.database.run(
            insert, again=lambda own: apply(own, job.made(), is_repeated=True, parcel=parcel, prepare=True)
        )
        return recorded if recorded.applied else self._count_refusal(job.made(), recorded)

    @staticmethod
    def params_of(event: events.Submitted) -> _Params:
        """Give the parameters of the statements for new jobs."""
        return statement_of(event)[1]

    def note_stopped(
        self,
        key: JobKey,
        *,
        attempt: int | None = None,
        worker_number: int | None = None,
        connection: CallersConnection | None = None,
    ) -> None:
        """Note that the work of a cancelled job has stopped; does nothing to any other.

        If this is not written, for the process is killed before, the end of its worker says the same.

        Args:
            key: The job.
            attempt: Which has ended; or:
            worker_number: Where it ran.
            connection: As for `record`.

        Raises:
            DatabaseUnavailable, DatabaseError: As for `record`.
        """
        params = {
            "tenant": key.tenant,
            "job_id": key.job_id,
            "attempt": attempt,
            "worker_number": worker_number,
        }
        if connection is not None:
            self.database.beneath(connection).execute(transitions.STOPPED, params)
        else:
            self.database.run(lambda own: own.execute(transitions.STOPPED, params), check_schema=False)

    def attend(self, recorded: events.Recorded) -> None:
        """See to what waited for an end that is committed."""
        if recorded.parent is not None and self._on_child_ended is not None:
            self._on_child_ended(recorded.parent)
        if recorded.chord is not None and recorded.is_chord_due and self._on_chord_due is not None:
            self._on_chord_due(recorded.chord)

    def submit_many(
        self,
        submitted: Sequence[events.Submitted],
        parcels: Parcels | None,
        connection: CallersConnection | None = None,
    ) -> set[UUID]:
        """Make many jobs, with their messages, in one statement.

        Args:
            submitted: Different jobs; none goes on from a running attempt, none has a singleton key.
            parcels: Their messages; None: each row has its own, for the relay.
            connection: As for `record`.

        Returns:
            Those that were made. Of the others there is a row already: `record` them one by one.

        Raises:
            DatabaseUnavailable, DatabaseError: As for `record`.
        """
        submitted = [seal_event(self.database.codec, event) for event in submitted]
        statement, params = submit.SUBMIT_MANY, {"rows": submit.rows_of(submitted)}
        if parcels is not None:
            statement = submit.submit_many_with(parcels.put, parcels.told)
            params |= parcels.parameters
        return self._run_many(statement, params, connection)

    def submit_plain(
        self, jobs: Sequence[PlainJob], parcels: Parcels, connection: CallersConnection | None = None
    ) -> set[UUID]:
        """Make many plain jobs, as `submit_many`."""
        params = submit.columns_of([job.params for job in jobs]) | parcels.parameters
        new, known = submit.submit_many_plain_with(parcels.put, parcels.told)
        if connection is not None or not all(job.is_new for job in jobs):
            return self._run_many(known, params, connection)
        made = self.database.run(
            lambda own: submit.insert_first(own, new, known, params),
            again=lambda own: prepared(known).tuples(own, params, prepare=True),
        )
        return {row[0] for row in made}

    def _run_many(
        self, statement: LiteralString, params: _Params, connection: CallersConnection | None
    ) -> set[UUID]:
        run = prepared(statement).tuples
        if connection is not None:
            return {row[0] for row in run(self.database.beneath(connection), params)}
        return {row[0] for row in self.database.run(lambda own: run(own, params, prepare=True))}

    def accept_many(self, accepted: Sequence[events.Accepted]) -> None:
        """Record that an engine has many jobs, in one statement.

        Args:
            accepted: Of different jobs, and one engine.

        Raises:
            DatabaseUnavailable, DatabaseError: As for `record`.
        """
        if not accepted:
            return
        params = batches.params_of_accepted(accepted)
        moved = self.database.run(lambda own: own.execute(batches.ACCEPT_MANY, params).fetchall())
        known = {row[0] for row in moved}
        for each in accepted:
            if each.key.job_id not in known:
                self.record(each)  # says why

    def _count_refusal(self, event: events.JobEvent, recorded: events.Recorded) -> events.Recorded:
        kind = type(event).__name__
        self.refused[kind] += 1
        told = {"job_id": str(event.key.job_id), "event": kind, "reason": recorded.reason}
        _log.debug("job_event_refused", extra=told)
        return recorded


def _apply_for_caller(
    connection: DriverConnection, event: events.JobEvent, parcel: Parcel | None
) -> events.Recorded:
    try:
        return apply(connection, event, parcel=parcel)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise refusal(error) from error


def apply(
    connection: DriverConnection,
    event: events.JobEvent,
    *,
    is_repeated: bool = False,
    parcel: Parcel | None = None,
    prepare: bool | None = None,
    is_new: bool = False,
) -> events.Recorded:
    """Apply one event on this connection.

    Args:
        connection: In autocommit mode, or in the transaction that the event is to be part of.
        event: What happened.
        is_repeated: It may have been applied just before, and its answer was lost.
        parcel: Of what is submitted: the message, stored by the same statement.
        prepare: What is submitted is sent all the time: prepared from the first time on.
        is_new: There is no row of that id, unless this is repeated; only in autocommit mode.
    """
    statement, params = statement_of(event)
    if parcel is not None:
        params |= parcel.parameters
        if isinstance(event, events.Submitted) and not is_repeated and submit.is_plainly_new(event):
            statement = submit.new_with(event, parcel.put, parcel.told, parcel.last, is_new=is_new)
            with suppress(psycopg.errors.UniqueViolation):
                if new := prepared(statement).tuples(connection, params, prepare=prepare):
                    return _as_applied(event, new[0]) if len(new[0]) > 1 else _PLAINLY_MADE
        statement = submit.submit_with(parcel.put, parcel.told)
    for _ in range(3):
        if isinstance(event, events.Submitted):
            rows = prepared(statement).tuples(connection, params, prepare=prepare)
            row = rows[0] if rows else None
        else:
            row = one_row(connection, statement, params)
        if row is not None:
            return _as_applied(event, row)
        state = _state(connection, event)
        if state is None and (made := _make(connection, event, params)) is not None:
            return made
        decision = decide(state, event, now=datetime.now(UTC))
        if not decision.applied:
            break
        if isinstance(event, events.Started) and (reason := suspension_of(connection, event.key)) is not None:
            return _skip(connection, event, state, reason)
        if isinstance(event, events.Started) and event.goes_back and is_paused(connection, event.queue):
            return _recorded(state, applied=False, reason=events.QUEUE_PAUSED, outcome=None)
        if isinstance(event, events.Started):
            params["gone"] = gone_holder(connection, event.key)
        # Its holder is gone, or the row changed between the two statements: the event applies after all.
    else:
        return _recorded(state, applied=False, reason=events.CONTENDED, outcome=None)
    if is_repeated and state is not None and is_as_left(state, event):
        return _recorded(state, applied=True, reason=None, outcome=None)
    return _recorded(state, applied=False, reason=decision.reason, outcome=decision.outcome)


#: What `insert_plain_with` needs not answer.
_PLAINLY_MADE = events.Recorded(applied=True, status=JobStatus.QUEUED, attempt=0, outcome="created")
_ENDS = (events.Completed, events.Failed, events.Cancelled, events.Expired, events.Skipped)
#: What an attempt says when it ends.
_LAST_WORDS = (
    events.Completed,
    events.Failed,
    events.AttemptFailed,
    events.Requeued,
    events.Replaced,
    events.AwaitsChildren,
)


def _as_applied(event: events.JobEvent, row: tuple[Any, ...]) -> events.Recorded:
    if isinstance(event, events.Submitted):
        return events.Recorded(applied=True, status=JobStatus(row[0]), attempt=row[1], outcome=row[2])
    recorded = events.Recorded(applied=True, status=JobStatus(row[0]), attempt=row[1])
    if not isinstance(event, _ENDS):
        return recorded
    parent = None if row[2] is None else JobKey(tenant=TenantId(str(row[2])), job_id=row[3])
    chord, is_due = row[4:6] or (None, None)
    return replace(recorded, parent=parent, chord=chord, is_chord_due=bool(is_due))


def _state(connection: DriverConnection, event: events.JobEvent) -> JobState | None:
    row = one_row(connection, transitions.STATE, {"tenant": event.key.tenant, "job_id": event.key.job_id})
    if row is None:
        return None
    return JobState(status=JobStatus(row[0]), attempt=row[1], delivery=row[2], run_at=row[3])


def _make(connection: DriverConnection, event: events.JobEvent, params: _Params) -> events.Recorded | None:
    """Make the row that is missing, if the event can tell enough for it."""
    if isinstance(event, events.Started):
        statement: LiteralString = transitions.START_UNKNOWN
    elif isinstance(event, events.Failed) and event.attempt is None and event.type and event.task_id:
        statement = transitions.FAIL_UNKNOWN
    else:
        return None
    row = one_row(connection, statement, params)
    return _as_applied(event, row) if row else None


def _skip(
    connection: DriverConnection, event: events.Started, state: JobState | None, reason: str
) -> events.Recorded:
    """End a job whose tenant is suspended; if the process dies in between, its message comes again, to the same end."""
    if state is None:
        apply(connection, _submitted_by(event))
    elif state.status is JobStatus.PROCESSING:
        apply(
            connection, events.Requeued(key=event.key, attempt=state.attempt, reason="Its worker was lost.")
        )
    why = f"The tenant is suspended: {reason}"
    skipped = apply(connection, events.Skipped(key=event.key, reason=why))
    return replace(skipped, applied=False, reason=why)


def _submitted_by(event: events.Started) -> events.Submitted:
    return events.Submitted(
        key=event.key,
        task_id=event.task_id,
        type=event.type,
        engine=event.engine,
        delivery=event.delivery or uuid4(),
        queue=event.queue,
        metadata=event.metadata,
        external_id=event.external_id,
    )


def _recorded(
    state: JobState | None, *, applied: bool, reason: str | None, outcome: str | None
) -> events.Recorded:
    return events.Recorded(
        applied=applied,
        status=state.status if state else None,
        attempt=state.attempt if state else 0,
        reason=reason,
        outcome=outcome,
    )

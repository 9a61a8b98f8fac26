"""The statements on batches. Each that acts holds the batch's row, so of two who look at once one finds it done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.batches.progress import BatchProgress, BatchState
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows, first_row, first_tuple, tuples
from jobbridge.store.values import as_jsonb

_COLUMNS: LiteralString = "tenant, batch_id, name, state, reason, created_at, sealed_at, ended_at, counts"

# No cast of the tenant: it is text in some databases and a uuid in others.
_MINE: LiteralString = " AND tenant = %(tenant)s"

OPEN: LiteralString = """
INSERT INTO public.job_batches (tenant, batch_id, name, callbacks, callbacks_type)
VALUES (%(tenant)s, %(batch_id)s, %(name)s, %(callbacks)s, %(callbacks_type)s)
ON CONFLICT (batch_id, tenant) DO NOTHING
"""

SEAL: LiteralString = """
UPDATE public.job_batches SET state = 'sealed', sealed_at = clock_timestamp()
WHERE batch_id = %(batch_id)s AND state = 'open'
"""

#: Open jobs of a batch, and chords in it whose body waits.
_HAS_OPEN: LiteralString = """(
    EXISTS (SELECT FROM public.jobs WHERE jobs.batch_id = batch.batch_id AND jobs.completed_at IS NULL)
    OR EXISTS (SELECT FROM public.job_chords AS chord WHERE chord.batch_id = batch.batch_id)
)"""

IS_DUE: LiteralString = f"""
SELECT EXISTS (
    SELECT FROM public.job_batches AS batch
    WHERE batch.batch_id = %(batch_id)s AND batch.state = 'sealed' AND NOT {_HAS_OPEN}
)
"""

LOCK: LiteralString = """
SELECT tenant, state, callbacks, callbacks_type FROM public.job_batches WHERE batch_id = %(batch_id)s
FOR UPDATE
"""

STATE: LiteralString = "SELECT state FROM public.job_batches WHERE batch_id = %(batch_id)s"

COUNTS: LiteralString = """
SELECT status, count(*) FROM public.jobs WHERE batch_id = %(batch_id)s GROUP BY status
"""

END: LiteralString = """
UPDATE public.job_batches
SET state = %(state)s, counts = %(counts)s, callbacks = NULL, callbacks_type = NULL, ended_at = clock_timestamp()
WHERE batch_id = %(batch_id)s
"""

CANCEL: LiteralString = """
UPDATE public.job_batches
SET state = 'cancelled', reason = %(reason)s, callbacks = NULL, callbacks_type = NULL
WHERE batch_id = %(batch_id)s AND state IN ('open', 'sealed')
"""

OPEN_JOBS: LiteralString = """
SELECT tenant, job_id FROM public.jobs
WHERE batch_id = %(batch_id)s AND completed_at IS NULL
LIMIT %(limit)s
"""

DROP_CHORDS: LiteralString = "DELETE FROM public.job_chords WHERE batch_id = %(batch_id)s"

#: As many rows as batches that wait: those whose last job nobody saw end, and those that are being cancelled.
LEFT: LiteralString = f"""
SELECT batch_id, state FROM public.job_batches AS batch
WHERE (state IN ('open', 'sealed') OR (state = 'cancelled' AND ended_at IS NULL))
  AND (state = 'cancelled' OR (state = 'sealed' AND NOT {_HAS_OPEN}))
  AND created_at < clock_timestamp() - %(neglect)s::interval
ORDER BY created_at
LIMIT 1000
"""

MARK_CHORD: LiteralString = """
UPDATE public.job_chords SET batch_id = %(batch_id)s WHERE chord_id = %(chord_id)s
"""

OF_CHORD: LiteralString = """
SELECT batch_id FROM public.job_chords WHERE chord_id = %(chord_id)s AND batch_id IS NOT NULL
"""

FIND: LiteralString = f"SELECT {_COLUMNS} FROM public.job_batches WHERE batch_id = %(batch_id)s"


def _page(of: LiteralString) -> LiteralString:
    return f"""
SELECT {_COLUMNS} FROM public.job_batches
WHERE (created_at, batch_id) < (%(before_at)s, %(before_id)s)
  AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s::text[])){of}
ORDER BY created_at DESC, batch_id DESC
LIMIT %(limit)s
"""


PAGE: LiteralString = _page("")
PAGE_OF_TENANT: LiteralString = _page(_MINE)

OF_JOB: LiteralString = """
SELECT batch_id FROM public.jobs WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND batch_id IS NOT NULL
"""

#: Which batches are gone that ended so long ago, and of which no job is left.
PRUNE: LiteralString = """
DELETE FROM public.job_batches AS batch
WHERE (batch.batch_id, batch.tenant) IN (
    SELECT old.batch_id, old.tenant FROM public.job_batches AS old
    WHERE old.ended_at < clock_timestamp() - %(keep)s::interval
      AND NOT EXISTS (SELECT FROM public.jobs WHERE jobs.batch_id = old.batch_id)
    ORDER BY old.created_at
    LIMIT 1000
)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRow:
    """A batch that somebody holds.

    Attributes:
        callbacks: Signatures by name, as their serializer has them; None: nothing follows.
        callbacks_type: Content type and encoding of them.
    """

    tenant: TenantId
    state: BatchState
    callbacks: bytes | None
    callbacks_type: str | None


def open_batch(
    connection: DriverConnection,
    batch_id: UUID,
    tenant: TenantId,
    name: str,
    *,
    callbacks: bytes | None,
    callbacks_type: str | None,
) -> None:
    """Make the row, before the first job is sent; again changes nothing."""
    params = {"name": name, "callbacks": callbacks, "callbacks_type": callbacks_type}
    connection.execute(OPEN, {"batch_id": batch_id, "tenant": tenant, **params})


def seal(connection: DriverConnection, batch_id: UUID) -> None:
    """Note that the block has ended."""
    connection.execute(SEAL, {"batch_id": batch_id})


def is_due(connection: DriverConnection, batch_id: UUID) -> bool:
    """Tell whether nothing is waited for any more, and what follows was not sent."""
    row = first_tuple(connection, IS_DUE, {"batch_id": batch_id})
    return row is not None and bool(row[0])


def lock(connection: DriverConnection, batch_id: UUID) -> BatchRow | None:
    """Give the row, and keep others from it until the transaction ends, also those who would add a job."""
    return first_row(connection, _batch_row, LOCK, {"batch_id": batch_id})


def _batch_row(
    *, tenant: object, state: str, callbacks: bytes | None, callbacks_type: str | None
) -> BatchRow:
    return BatchRow(
        tenant=TenantId(str(tenant)),
        state=BatchState(state),
        callbacks=None if callbacks is None else bytes(callbacks),
        callbacks_type=callbacks_type,
    )


def state_of(connection: DriverConnection, batch_id: UUID) -> BatchState | None:
    """Give how it is; None: there is no such batch."""
    row = first_tuple(connection, STATE, {"batch_id": batch_id})
    return None if row is None else BatchState(row[0])


def counts(connection: DriverConnection, batch_id: UUID) -> dict[JobStatus, int]:
    """Count its jobs by status; reads each."""
    rows = tuples(connection, COUNTS, {"batch_id": batch_id})
    return {JobStatus(status): number for status, number in rows}


def end(
    connection: DriverConnection, batch_id: UUID, state: BatchState, statuses: Mapping[JobStatus, int]
) -> None:
    """Note that it has ended, and how."""
    told = as_jsonb({status.value: number for status, number in statuses.items()})
    connection.execute(END, {"batch_id": batch_id, "state": state.value, "counts": told})


def cancel(connection: DriverConnection, batch_id: UUID, reason: str | None) -> bool:
    """Have nothing follow, and nobody join; False: it had ended."""
    return connection.execute(CANCEL, {"batch_id": batch_id, "reason": reason}).rowcount > 0


def open_jobs(connection: DriverConnection, batch_id: UUID, *, limit: int) -> list[JobKey]:
    """Give some of its jobs that have not ended."""
    rows = tuples(connection, OPEN_JOBS, {"batch_id": batch_id, "limit": limit})
    return [JobKey(tenant=TenantId(str(tenant)), job_id=job_id) for tenant, job_id in rows]


def drop_chords(connection: DriverConnection, batch_id: UUID) -> None:
    """Have no body of its chords sent any more."""
    connection.execute(DROP_CHORDS, {"batch_id": batch_id})


def left(connection: DriverConnection, *, neglect: timedelta) -> list[tuple[UUID, BatchState]]:
    """Give those in which something was left undone: due, or being cancelled."""
    rows = tuples(connection, LEFT, {"neglect": neglect})
    return [(batch_id, BatchState(state)) for batch_id, state in rows]


def mark_chord(connection: DriverConnection, chord_id: str, batch_id: UUID) -> None:
    """Have a batch wait for a chord's body, which joins it."""
    connection.execute(MARK_CHORD, {"chord_id": chord_id, "batch_id": batch_id})


def batch_of_chord(connection: DriverConnection, chord_id: str) -> UUID | None:
    """Give the batch that waits for it."""
    row = first_tuple(connection, OF_CHORD, {"chord_id": chord_id})
    return None if row is None else row[0]


class BatchStore:
    """Questions about batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def progress(self, batch_id: UUID) -> BatchProgress | None:
        """Give how it is; None: there is no such batch. Reads each of its jobs, unless it has ended."""

        def look(own: DriverConnection) -> BatchProgress | None:
            found = all_rows(own, _progress, FIND, {"batch_id": batch_id})
            return self._counted(own, found[0]) if found else None

        return self._database.run(look)

    def page(
        self,
        *,
        tenant: TenantId | None = None,
        states: Sequence[BatchState] | None = None,
        before: tuple[datetime, UUID] | None = None,
        limit: int = 50,
    ) -> list[BatchProgress]:
        """Give batches, the newest first.

        Args:
            tenant: Whose; None: everybody's.
            states: Those in one of these; None: in any.
            before: `created_at` and `id` of the last one of the page before.
            limit: At most so many.
        """
        at, batch_id = before or ("infinity", UUID(int=2**128 - 1))
        params: dict[str, Any] = {
            "tenant": tenant,
            "states": None if states is None else [state.value for state in states],
            "before_at": at,
            "before_id": batch_id,
            "limit": limit,
        }
        statement = PAGE if tenant is None else PAGE_OF_TENANT

        def look(own: DriverConnection) -> list[BatchProgress]:
            return [self._counted(own, each) for each in all_rows(own, _progress, statement, params)]

        return self._database.ask(look, otherwise=[])

    def of_job(self, key: JobKey) -> UUID | None:
        """Give the batch that a job is of."""
        params = {"tenant": key.tenant, "job_id": key.job_id}
        row = self._database.run(lambda own: first_tuple(own, OF_JOB, params))
        return None if row is None else row[0]

    def prune(self, keep: timedelta) -> int:
        """Delete those that ended so long ago, and have no job any more; gives how many."""
        return self._database.run(lambda own: own.execute(PRUNE, {"keep": keep}).rowcount)

    def _counted(self, own: DriverConnection, told: tuple[BatchProgress, bool]) -> BatchProgress:
        batch, is_counted = told
        if is_counted:
            return batch
        return replace(batch, statuses=counts(own, batch.id))


def _progress(
    *, tenant: object, batch_id: UUID, state: str, counts: dict[str, int] | None, **columns: Any
) -> tuple[BatchProgress, bool]:
    statuses = {JobStatus(status): number for status, number in (counts or {}).items()}
    batch = BatchProgress(
        id=batch_id, tenant=TenantId(str(tenant)), state=BatchState(state), statuses=statuses, **columns
    )
    return batch, counts is not None

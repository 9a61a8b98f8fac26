"""The rows that wait for the parts of chords.

A part counts itself within the statement that ends it (`transitions`), whatever that end is: completed, failed,
cancelled, expired, skipped. So no part is counted twice, and none is forgotten when a process dies. Whoever finds that
nothing is waited for any more sends the body and deletes the row, in one transaction that holds the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

from jobbridge.core.keys import SYSTEM_TENANT
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.fetch import all_rows, first_row, tuples
from jobbridge.store.jobs.queries import RESULT_COLUMNS
from jobbridge.store.jobs.rows import StoredResult, stored_result
from jobbridge.store.statuses import FINAL_STATUSES

_THIS: LiteralString = f"tenant = '{SYSTEM_TENANT}' AND chord_id = %(chord_id)s"
_IS_DUE: LiteralString = "(broken_by IS NOT NULL OR counted >= size + added)"

#: One that is sent again begins anew.
OPEN: LiteralString = f"""
INSERT INTO public.job_chords (tenant, chord_id, body, body_type, header, lifetime)
VALUES ('{SYSTEM_TENANT}', %(chord_id)s, %(body)s, %(body_type)s, %(header)s, %(lifetime)s)
ON CONFLICT (tenant, chord_id) DO UPDATE SET
    body = excluded.body, body_type = excluded.body_type, header = excluded.header, lifetime = excluded.lifetime,
    size = NULL, added = 0, counted = 0, broken_by = NULL,
    created_at = clock_timestamp(), updated_at = clock_timestamp()
"""

SET_SIZE: LiteralString = f"""
UPDATE public.job_chords SET size = %(size)s, updated_at = clock_timestamp() WHERE {_THIS}
RETURNING {_IS_DUE}
"""

ADD: LiteralString = f"""
UPDATE public.job_chords SET added = added + 1, updated_at = clock_timestamp() WHERE {_THIS}
"""

LOCK: LiteralString = f"""
SELECT body, body_type, header, size + added AS size, broken_by, coalesce({_IS_DUE}, false) AS is_due,
    lifetime < clock_timestamp() - updated_at AS is_forgotten
FROM public.job_chords WHERE {_THIS}
FOR UPDATE
"""

#: A counter that a worker of the release before has kept is not the whole truth.
RECOUNT: LiteralString = f"""
UPDATE public.job_chords AS chord
SET counted = (
        SELECT count(*) FROM public.jobs
        WHERE jobs.chord_id = %(chord_id)s AND chord_index IS NOT NULL AND status IN ({FINAL_STATUSES})
    ),
    updated_at = clock_timestamp()
WHERE {_THIS} AND size IS NOT NULL AND updated_at <= clock_timestamp() - %(older_than)s::interval
"""

#: A job that replaced itself waits, without a delivery, for the task that has its id.
WAITS_FOR_CANVAS: LiteralString = """
SELECT EXISTS (
    SELECT FROM public.jobs
    WHERE job_id = %(job_id)s AND status = 'queued' AND delivery IS NULL AND started_at IS NOT NULL
)
"""

TOUCH: LiteralString = f"UPDATE public.job_chords SET updated_at = clock_timestamp() WHERE {_THIS}"

DELETE: LiteralString = f"DELETE FROM public.job_chords WHERE {_THIS}"

FORGET_KEYS: LiteralString = f"""
DELETE FROM public.job_keys WHERE tenant = '{SYSTEM_TENANT}' AND key = ANY(%(keys)s)
"""

PARTS: LiteralString = f"""
SELECT {RESULT_COLUMNS} FROM public.jobs
WHERE chord_id = %(chord_id)s AND chord_index IS NOT NULL
ORDER BY chord_index, created_at, job_id
"""

OF_IDS: LiteralString = f"SELECT {RESULT_COLUMNS} FROM public.jobs WHERE job_id = ANY(%(job_ids)s)"

#: There are as many rows as chords that wait. What was left undone comes first, then what nobody spoke of for a while.
LEFT: LiteralString = f"""
SELECT chord_id, coalesce({_IS_DUE}, false) OR coalesce(lifetime < clock_timestamp() - updated_at, false)
FROM public.job_chords
WHERE (({_IS_DUE} OR lifetime < clock_timestamp() - updated_at) AND updated_at < now() - %(neglect)s::interval)
   OR ((size IS NOT NULL OR chord_id LIKE 'replaced:%%') AND updated_at < now() - %(silence)s::interval)
ORDER BY 2 DESC, updated_at
LIMIT 1000
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChordRow:
    """A chord that waits.

    Attributes:
        body: The signature to be sent, as its serializer has it.
        body_type: Content type and encoding of it.
        header: How the results are nested, where they are.
        size: How many parts there are; None while they are being sent.
        broken_by: The job whose end means that a part will never be sent.
        is_due: It waits for nothing any more.
        is_forgotten: Nothing was heard for longer than it may wait.
    """

    body: bytes
    body_type: str
    header: bytes | None
    size: int | None
    broken_by: UUID | None
    is_due: bool
    is_forgotten: bool | None


def open_chord(
    connection: DriverConnection,
    chord_id: str,
    *,
    body: bytes,
    body_type: str,
    header: bytes | None,
    lifetime: timedelta | None,
) -> None:
    """Make the row, before the first part is sent."""
    params = {"body": body, "body_type": body_type, "header": header, "lifetime": lifetime}
    connection.execute(OPEN, {"chord_id": chord_id, **params})


def set_size(connection: DriverConnection, chord_id: str, size: int) -> bool:
    """Say how many parts there are, before the last one is sent; tell whether all have ended."""
    rows = tuples(connection, SET_SIZE, {"chord_id": chord_id, "size": size})
    return any(is_due for (is_due,) in rows)


def add_part(connection: DriverConnection, chord_id: str) -> None:
    """Wait for one more."""
    connection.execute(ADD, {"chord_id": chord_id})


def lock(connection: DriverConnection, chord_id: str) -> ChordRow | None:
    """Give the row, and keep others from it until the transaction ends; None: there is none, or no longer."""
    return first_row(connection, ChordRow, LOCK, {"chord_id": chord_id})


def recount(connection: DriverConnection, chord_id: str, *, older_than: timedelta) -> None:
    """Count the parts that have ended by their rows, if nothing was heard for so long."""
    connection.execute(RECOUNT, {"chord_id": chord_id, "older_than": older_than})


def waits_for_canvas(connection: DriverConnection, chord_id: str, job_id: UUID) -> bool:
    """Tell whether a job that replaced itself waits still; if so, it is looked at again after a while."""
    [(waits,)] = tuples(connection, WAITS_FOR_CANVAS, {"job_id": job_id})
    if waits:
        connection.execute(TOUCH, {"chord_id": chord_id})
    return bool(waits)


def close(connection: DriverConnection, chord_id: str, keys: Sequence[str]) -> None:
    """Delete the row, and these keys that releases before kept of it."""
    connection.execute(DELETE, {"chord_id": chord_id})
    connection.execute(FORGET_KEYS, {"keys": list(keys)})


def parts(connection: DriverConnection, chord_id: str) -> list[StoredResult]:
    """Give what is known of all parts' results, in the header's order."""
    return all_rows(connection, stored_result, PARTS, {"chord_id": chord_id})


def results_of(connection: DriverConnection, job_ids: Sequence[UUID]) -> list[StoredResult]:
    """Give what is known of these jobs' results, in any order."""
    return all_rows(connection, stored_result, OF_IDS, {"job_ids": list(job_ids)})


def left(connection: DriverConnection, *, neglect: timedelta, silence: timedelta) -> list[tuple[str, bool]]:
    """Give chords that somebody should look at.

    Those that are due (true) and left undone for `neglect`; and those of which nothing was heard for `silence`.
    """
    return [tuple(row) for row in tuples(connection, LEFT, {"neglect": neglect, "silence": silence})]

"""Marks how jobs ended, where no trigger did: `completed_at` and `unsuccessful`, which indexes know jobs by (0017)."""

from __future__ import annotations

from typing import LiteralString

from jobbridge.core.status import UNSUCCESSFUL
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.statuses import FINAL_STATUSES, listed

_UNSUCCESSFUL: LiteralString = listed(UNSUCCESSFUL)

#: Pages of 8 kB that one statement reads: a fraction of a second.
PAGES = 2_000

_LAST_PAGE: LiteralString = "SELECT pg_relation_size('public.jobs') / current_setting('block_size')::integer"

#: As the trigger jobbridge_mark_end does.
MARK: LiteralString = f"""
UPDATE public.jobs
SET completed_at = CASE WHEN status IN ({FINAL_STATUSES})
        THEN coalesce(completed_at, updated_at) END,
    unsuccessful = CASE WHEN status IN ({_UNSUCCESSFUL}) THEN status END
WHERE ctid >= %(first)s::tid AND ctid < %(end)s::tid
  AND (
    (completed_at IS NULL) = (status IN ({FINAL_STATUSES}))
    OR unsuccessful IS DISTINCT FROM
        CASE WHEN status IN ({_UNSUCCESSFUL}) THEN status END
  )
"""


def mark_ends(connection: DriverConnection) -> int:
    """Set right what triggers would have, of all jobs that there are; gives how many were not. Nobody waits for it.

    Args:
        connection: In autocommit mode: each portion is a transaction of its own.
    """
    [(pages,)] = connection.execute(_LAST_PAGE).fetchall()
    marked = 0
    for page in range(0, pages, PAGES):
        marked += connection.execute(MARK, {"first": f"({page},0)", "end": f"({page + PAGES},0)"}).rowcount
    return marked

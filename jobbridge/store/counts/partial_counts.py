"""Merges what statements that made or deleted many jobs have added to the counts.

Such a statement adds its sums as rows of a part of its own (`migrations`, 0013): it neither waits for others nor keeps
them waiting, and is counted at once, since whoever reads adds up all parts. Many parts make that slower, so they are
merged into part 0, some at a time. Answers are the same before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.counts.counts import delete_empty
from jobbridge.store.database import Database

#: Rows of one statement: some 100 ms.
BATCH = 5_000


def _merge(
    table: LiteralString,
    key: LiteralString,
    sums: LiteralString,
    new_sums: LiteralString,
    added: LiteralString,
) -> LiteralString:
    """In the order of the keys, as `counts.FOLD`: two who write at once wait for each other, and block nobody."""
    return f"""
WITH taken AS (
    DELETE FROM public.{table}
    WHERE part <> 0 AND ctid = ANY(ARRAY(
        SELECT ctid FROM public.{table} WHERE part <> 0 LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ))
    RETURNING {key}, {sums}
), merged AS (
    INSERT INTO public.{table} AS cell ({key}, {sums})
    SELECT {key}, {new_sums} FROM taken GROUP BY {key} ORDER BY {key}
    ON CONFLICT ON CONSTRAINT {table}_pkey DO UPDATE SET {added}
    RETURNING {key}, cell.jobs
)
SELECT (SELECT count(*) FROM taken), {key}, jobs FROM merged
"""


_JOBS: tuple[LiteralString, LiteralString, LiteralString] = (
    "jobs",
    "sum(jobs)",
    "jobs = cell.jobs + excluded.jobs",
)
_TIMES: tuple[LiteralString, LiteralString, LiteralString] = (
    "jobs, ms",
    "sum(jobs), sum(ms)",
    "jobs = cell.jobs + excluded.jobs, ms = cell.ms + excluded.ms",
)

MERGE_COUNTS: LiteralString = _merge("job_counts", "tenant, engine, status", *_JOBS)
MERGE_HOURS: LiteralString = _merge("job_hours", "tenant, status, hour, engine", *_JOBS)
MERGE_FLOW: LiteralString = _merge("job_flow", "tenant, span, at, engine, status, bucket", *_TIMES)
MERGE_FLOW_TOTALS: LiteralString = _merge("job_flow_totals", "span, at, engine, status, bucket", *_TIMES)


def merge(database: Database, *, limit: int = BATCH) -> Iterator[int]:
    """Merge parts, a portion at each step; gives how many rows, until there are no more.

    The totals come first: there are few of them, and they are read most often.
    """
    for statement in (MERGE_COUNTS, MERGE_FLOW_TOTALS, MERGE_HOURS, MERGE_FLOW):
        while True:
            merged = database.run(lambda own, statement=statement: _portion(own, statement, limit))  # type: ignore[misc]  # bound at once
            if merged:
                yield merged
            if merged < limit:
                break


def _portion(connection: DriverConnection, statement: LiteralString, limit: int) -> int:
    with connection.transaction():
        rows = connection.execute(statement, {"limit": limit}).fetchall()
        if statement is MERGE_HOURS:
            delete_empty(connection, [row[1:] for row in rows if row[-1] == 0])
        return int(rows[0][0]) if rows else 0

"""How jobs ended: marked where no trigger did it, and told to who compares them with what an engine has.

The marks are `completed_at` and `unsuccessful`, which indexes know jobs by (0017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.keys import JobKey, TenantId, job_id_for
from jobbridge.core.status import UNSUCCESSFUL, JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows
from jobbridge.store.statuses import FINAL_STATUSES, listed

_UNSUCCESSFUL: LiteralString = listed(UNSUCCESSFUL)

#: Pages of 8 kB that one statement reads: a fraction of a second.
PAGES = 2_000

#: Of the table, or of each of its partitions.
_PAGES: LiteralString = """
SELECT oid, pg_relation_size(oid) / current_setting('block_size')::integer
FROM pg_class
WHERE relkind = 'r' AND (
    oid = 'public.jobs'::regclass OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.jobs'::regclass)
)
"""

#: By the ids that an engine knows jobs by. Nearly always that is the job's own; an index has the others. Of two jobs
#: of one id the newer counts.
ENDED_FOR_ENGINE: LiteralString = """
SELECT tenant, job_id, engine_id, external_run_id, delivery, status
FROM (
    SELECT DISTINCT ON (engine_id)
        tenant, job_id, engine_id, external_run_id, delivery, status, completed_at
    FROM (
        SELECT tenant, job_id, job_id::text AS engine_id, external_run_id, delivery, status, completed_at, created_at
        FROM public.jobs
        WHERE job_id = ANY(%(job_ids)s) AND coalesce(external_id, job_id::text) = job_id::text
        UNION ALL
        SELECT tenant, job_id, external_id AS engine_id, external_run_id, delivery, status, completed_at, created_at
        FROM public.jobs
        WHERE external_id = ANY(%(external_ids)s) AND external_id <> job_id::text
    ) AS known
    ORDER BY engine_id, created_at DESC
) AS newest
WHERE completed_at < clock_timestamp() - %(quiet)s::interval
"""

#: As the trigger jobbridge_mark_end does.
MARK: LiteralString = f"""
UPDATE public.jobs
SET completed_at = CASE WHEN status IN ({FINAL_STATUSES})
        THEN coalesce(completed_at, updated_at) END,
    unsuccessful = CASE WHEN status IN ({_UNSUCCESSFUL}) THEN status END
WHERE tableoid = %(table)s AND ctid >= %(first)s::tid AND ctid < %(end)s::tid
  AND (
    (completed_at IS NULL) = (status IN ({FINAL_STATUSES}))
    OR unsuccessful IS DISTINCT FROM
        CASE WHEN status IN ({_UNSUCCESSFUL}) THEN status END
  )
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedJob:
    """A job that has ended, as its engine knows it.

    Attributes:
        engine_id: What the engine calls it.
        external_run_id: Which run of it there began the last attempt, if one began.
        delivery: By which it was sent the last time.
    """

    key: JobKey
    engine_id: str
    external_run_id: str | None
    delivery: UUID | None
    status: JobStatus


def ended_for_engine(database: Database, engine_ids: Sequence[str], *, quiet: timedelta) -> list[EndedJob]:
    """Tell which of these have ended in the books, for so long already.

    Args:
        database: Where the jobs are.
        engine_ids: As their engine calls them.
        quiet: Who ended within this time is left out: the engine hears of it after the row.
    """
    params = {
        "job_ids": [job_id_for(each) for each in engine_ids],
        "external_ids": list(engine_ids),
        "quiet": quiet,
    }
    return database.run(lambda own: all_rows(own, _ended_job, ENDED_FOR_ENGINE, params))


def _ended_job(*, tenant: Any, job_id: UUID, status: str, **columns: Any) -> EndedJob:
    key = JobKey(tenant=TenantId(str(tenant)), job_id=job_id)
    return EndedJob(key=key, status=JobStatus(status), **columns)


def mark_ends(connection: DriverConnection) -> int:
    """Set right what triggers would have, of all jobs that there are; gives how many were not. Nobody waits for it.

    Args:
        connection: In autocommit mode: each portion is a transaction of its own.
    """
    marked = 0
    for table, pages in connection.execute(_PAGES).fetchall():
        for page in range(0, pages, PAGES):
            place = {"table": table, "first": f"({page},0)", "end": f"({page + PAGES},0)"}
            marked += connection.execute(MARK, place).rowcount
    return marked

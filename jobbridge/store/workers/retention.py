"""Delete what is past its retention, in portions.

A portion is a stretch of `jobs_newest_idx`, from the oldest on: so many rows are read, whatever becomes of them, and
no lock is held for long. A job goes with its steps, its singleton key, its events, and what it was as a parent;
nothing cascades.
What is not final stays, however old. Source of the shape: PostgreSQL manual, "WITH Queries", data-modifying
statements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

from psycopg import sql

from jobbridge.core.status import FINAL, JobStatus
from jobbridge.store.database import Database

#: What goes with the jobs of `portion` that are `doomed`, and what became of it.
GONE: LiteralString = """gone AS (
    DELETE FROM public.jobs AS job
    USING doomed
    WHERE job.tenant = doomed.tenant AND job.job_id = doomed.job_id
      AND job.status = ANY(%(final)s) AND job.completed_at < doomed.completed_before
    RETURNING job.tenant, job.job_id, job.singleton_key
), steps AS (
    DELETE FROM public.job_details AS step
    USING gone
    WHERE step.tenant = gone.tenant AND step.job_id = gone.job_id
    RETURNING 1
), keys AS (
    DELETE FROM public.job_singletons AS singleton
    USING gone
    WHERE singleton.tenant = gone.tenant AND singleton.key = gone.singleton_key AND singleton.job_id = gone.job_id
    RETURNING 1
), fan_outs AS (
    DELETE FROM public.job_families AS fan_out
    USING gone
    WHERE fan_out.tenant = gone.tenant AND fan_out.parent_id = gone.job_id
), members AS (
    DELETE FROM public.job_family_members AS member
    USING gone
    WHERE member.parent_tenant = gone.tenant AND member.parent_id = gone.job_id
), waits AS (
    DELETE FROM public.job_waits AS wait
    USING gone
    WHERE wait.tenant = gone.tenant AND wait.job_id = gone.job_id
), events AS (
    DELETE FROM public.job_inbox AS event
    USING gone
    WHERE event.tenant = gone.tenant AND event.job_id = gone.job_id
), taken_events AS (
    DELETE FROM public.job_inbox AS event
    USING gone
    WHERE event.tenant = gone.tenant AND event.consumed_by = gone.job_id AND event.job_id IS NULL
)
SELECT (SELECT count(*) FROM portion), (SELECT count(*) FROM gone), (SELECT count(*) FROM steps),
    last.created_at, last.job_id
FROM (SELECT created_at, job_id FROM portion ORDER BY created_at DESC, job_id DESC LIMIT 1) AS last
"""

#: A tenant's own rule wins over the setting, also if it says "for ever" (NULL). Statuses without either are kept. The
#: job may have been sent again since the portion was read: then it is not final, or ended later, and stays.
# Lower case: it is a statement only with the name of a table.
_prune_of: LiteralString = f"""
WITH portion AS MATERIALIZED (
    SELECT tenant, job_id, status, completed_at, created_at
    FROM {{jobs}}
    WHERE created_at < now() - %(shortest)s::interval
      AND (created_at, job_id) > (%(after_at)s, %(after_id)s)
    ORDER BY created_at, job_id
    LIMIT %(limit)s
), doomed AS (
    SELECT portion.tenant, portion.job_id,
        now() - CASE WHEN own.tenant IS NULL THEN usual.keep ELSE own.keep END AS completed_before
    FROM portion
    LEFT JOIN unnest(%(statuses)s::text[], %(keeps)s::interval[]) AS usual (status, keep)
        ON usual.status = portion.status
    LEFT JOIN public.job_retention AS own
        ON own.tenant = portion.tenant AND own.status = portion.status
    WHERE portion.status = ANY(%(final)s)
), {GONE}"""
PRUNE: LiteralString = _prune_of.replace("{jobs}", "public.jobs")

KEEP: LiteralString = """
INSERT INTO public.job_retention (tenant, status, keep)
VALUES (%(tenant)s, %(status)s, %(keep)s)
ON CONFLICT (tenant, status) DO UPDATE SET keep = excluded.keep
"""


SHORTEST: LiteralString = "SELECT min(keep) FROM public.job_retention"

Retention = Mapping[JobStatus, timedelta]  # what is not in it is kept


@dataclass(frozen=True, kw_only=True, slots=True)
class Portion:
    """What one portion came to.

    Attributes:
        read: Rows that were old enough to be looked at.
        last: Where the next portion begins.
    """

    read: int
    jobs: int
    steps: int
    last: tuple[datetime, UUID]


def prune(
    database: Database,
    retention: Retention,
    *,
    shortest: timedelta,
    after: tuple[datetime, UUID],
    limit: int,
    partition: str | None = None,
) -> Portion | None:
    """Delete what is past its retention among the next jobs; None when there is no older one.

    Args:
        database: Where the jobs are.
        retention: For tenants that have no rule of their own; from a job's end.
        shortest: Younger jobs are not even read.
        after: The `last` of the portion before.
        limit: At most so many jobs are read.
        partition: Only those in it, by its name behind `jobs_`; None: all.
    """
    params = {
        "shortest": shortest,
        "statuses": [status.value for status in retention],
        "keeps": list(retention.values()),
    }
    statement: LiteralString | sql.Composed = PRUNE
    if partition is not None:
        statement = sql.SQL(_prune_of).format(jobs=sql.Identifier("public", f"jobs_{partition}"))
    return delete_portion(database, statement, params, after=after, limit=limit)


def delete_portion(
    database: Database,
    statement: LiteralString | sql.Composed,
    params: Mapping[str, object],
    *,
    after: tuple[datetime, UUID],
    limit: int,
) -> Portion | None:
    """Run a statement that ends with `GONE`; None when there are no more jobs after that place."""
    at, job_id = after
    place = {"after_at": "-infinity" if at is datetime.min else at, "after_id": job_id, "limit": limit}
    all_params = {**params, **place, "final": sorted(FINAL)}
    row = database.run(lambda own: own.execute(statement, all_params).fetchone())
    if row is None:
        return None
    read, jobs, steps, last_at, last_id = row
    return Portion(read=read, jobs=jobs, steps=steps, last=(last_at, last_id))


def shortest_retention(database: Database, retention: Retention) -> timedelta | None:
    """Give the shortest time that any rule says; None when all is kept for ever."""
    row = database.run(lambda own: own.execute(SHORTEST).fetchone())
    own_rules = [row[0]] if row and row[0] is not None else []
    return min([*retention.values(), *own_rules], default=None)


def keep(database: Database, tenant: str, status: JobStatus, how_long: timedelta | None) -> None:
    """Keep a tenant's jobs of a status for that time after their end; None: for ever."""
    params = {"tenant": tenant, "status": status.value, "keep": how_long}
    database.run(lambda own: own.execute(KEEP, params))

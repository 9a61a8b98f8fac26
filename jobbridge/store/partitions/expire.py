"""A partition goes as a whole when its jobs are past their retention, but for a few that are taken out of it.

Three steps, each of which may be the last before a crash:

1. Look, without a lock that anybody waits for: which jobs are to stay (open ones, and those that are kept for longer).
   Too many: nothing is done, and they are deleted row by row when it is their time.
2. Detach, in one transaction of some milliseconds: those jobs are copied to the default partition with their steps,
   and the partition is a table of its own, which says that it is to be dropped.
3. Drop it: what came to be kept between the two is copied, too. Then the counts lose what goes, the tables of waits,
   events and the like lose what was of it, and it is dropped: one transaction.

After a crash the next run finds what was detached by what it says, and takes the third step. DETACH CONCURRENTLY is not
possible where there is a default partition (PostgreSQL manual, ALTER TABLE).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString

from psycopg import sql

from jobbridge.core.status import FINAL, JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.schema.rendering import qualified
from jobbridge.store.partitions.ahead import limit_locks
from jobbridge.store.partitions.layout import DEFAULT, PARTITIONED, Partition, say_detached, table_of

#: Jobs that are taken out of a partition while its table is locked: a fraction of a second.
MOST_KEPT = 10_000

_IS_KEPT: LiteralString = """
    job.completed_at IS NULL OR job.status <> ALL(%(final)s)
    OR CASE WHEN own.tenant IS NULL THEN usual.keep ELSE own.keep END IS NULL
    OR job.completed_at >= now() - CASE WHEN own.tenant IS NULL THEN usual.keep ELSE own.keep END"""
_WITH_KEEP: LiteralString = """
    LEFT JOIN unnest(%(statuses)s::text[], %(keeps)s::interval[]) AS usual (status, keep) ON usual.status = job.status
    LEFT JOIN public.job_retention AS own ON own.tenant = job.tenant AND own.status = job.status"""

#: As `retention.PRUNE` judges them.
_KEPT: LiteralString = f"SELECT job.job_id FROM {{jobs}} AS job{_WITH_KEEP} WHERE {_IS_KEPT} LIMIT %(most)s"

_SAVE_JOBS: LiteralString = """
INSERT INTO {default} ({columns})
SELECT {columns} FROM {jobs} AS job WHERE job.completed_at IS NULL OR job.job_id = ANY(%(kept)s)
"""
_SAVE_STEPS: LiteralString = """
INSERT INTO {default} ({columns})
SELECT {columns} FROM {steps} AS step
WHERE (step.tenant, step.job_id) IN (
    SELECT tenant, job_id FROM {jobs} AS job WHERE job.completed_at IS NULL OR job.job_id = ANY(%(kept)s)
)
"""

_LATE: LiteralString = f"""
SELECT job.job_id FROM {{jobs}} AS job{_WITH_KEEP}
WHERE ({_IS_KEPT}) AND NOT EXISTS (
    SELECT FROM {{default}} AS saved WHERE saved.job_id = job.job_id AND saved.tenant = job.tenant
)
"""

_GONE: LiteralString = """
    SELECT job.tenant, job.runner_type, job.status, date_trunc('hour', job.created_at, 'UTC') AS hour, count(*) AS jobs
    FROM {jobs} AS job
    WHERE NOT EXISTS (
        SELECT FROM {default} AS saved WHERE saved.job_id = job.job_id AND saved.tenant = job.tenant
    )
    GROUP BY 1, 2, 3, 4"""
#: As the trigger jobbridge_count_gone does for many (0013).
_UNCOUNT: LiteralString = f"""
WITH own AS MATERIALIZED (
    SELECT nextval('public.job_count_parts') AS part
), gone AS MATERIALIZED ({_GONE}
), hours AS (
    INSERT INTO public.job_hours (tenant, status, hour, engine, part, jobs)
    SELECT tenant, status, hour, runner_type, own.part, -jobs FROM gone, own ORDER BY 1, 2, 3, 4
), totals AS (
    INSERT INTO public.job_counts (tenant, engine, status, part, jobs)
    SELECT tenant, runner_type, status, own.part, -sum(jobs) FROM gone, own GROUP BY 1, 2, 3, 4
)
SELECT coalesce(sum(jobs), 0) FROM gone
"""

#: What goes with a job, as `retention.GONE` has it; by the range of ids, of which nothing is left but what was saved.
_HANGS_ON: Mapping[str, str] = {
    "job_singletons": "other.job_id",
    "job_families": "other.parent_id",
    "job_family_members": "other.parent_id",
    "job_waits": "other.job_id",
    "job_inbox": "coalesce(other.job_id, other.consumed_by)",
}
_FORGET: LiteralString = """
DELETE FROM {table} AS other
WHERE {column} >= %(first)s AND {column} < %(end)s AND NOT EXISTS (
    SELECT FROM {default} AS saved WHERE saved.job_id = {column}
)
"""
_COLUMNS: LiteralString = """
SELECT attname FROM pg_attribute WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped
    AND attgenerated = '' ORDER BY attnum
"""

Retention = Mapping[JobStatus, timedelta]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """What came of a partition.

    Attributes:
        kept: Jobs that stay.
        jobs: Jobs that are gone.
    """

    kept: int
    jobs: int


def kept(
    connection: DriverConnection, partition: Partition, retention: Retention, *, most: int = MOST_KEPT
) -> list[Any] | None:
    """Give the ids of the jobs that are to stay; None: they are more than `most`. Reads the whole partition."""
    statement = sql.SQL(_KEPT).format(jobs=table_of("jobs", partition.name))
    rows = connection.execute(statement, _params(retention) | {"most": most + 1}).fetchall()
    return None if len(rows) > most else [job_id for (job_id,) in rows]


def detach(connection: DriverConnection, partition: Partition, ids: list[Any]) -> None:
    """Take the partition out of the tables, and these jobs, and all that are open, out of it.

    Raises:
        psycopg.errors.LockNotAvailable: Somebody uses the tables for long; nothing was done.
    """
    with connection.transaction():
        limit_locks(connection)
        # In the order in which statements take them; no partition but this one and the default one.
        for table in PARTITIONED:
            connection.execute(
                sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier("public", table))
            )
        for table in PARTITIONED:
            connection.execute(
                sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(
                    sql.Identifier("public", table), table_of(table, partition.name)
                )
            )
        _save(connection, partition.name, ids)
        say_detached(connection, partition)


def drop_detached(connection: DriverConnection, partition: Partition, retention: Retention) -> int:
    """Drop what was detached; gives how many jobs are gone by it."""
    tables = {"jobs": table_of("jobs", partition.name), "default": table_of("jobs", DEFAULT)}
    late = connection.execute(sql.SQL(_LATE).format(**tables), _params(retention)).fetchall()
    if late:  # nobody writes to it any more, so that this is all of it
        with connection.transaction():
            limit_locks(connection)
            _save(connection, partition.name, [job_id for (job_id,) in late], opens=False)
    with connection.transaction():
        row = connection.execute(sql.SQL(_UNCOUNT).format(**tables)).fetchone()
        for table, column in _HANGS_ON.items():
            statement = sql.SQL(_FORGET).format(
                table=sql.Identifier("public", table),
                column=sql.SQL(column),
                default=tables["default"],
            )
            connection.execute(statement, {"first": partition.first, "end": partition.end})
        for table in PARTITIONED:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table_of(table, partition.name)))
    return int(row[0]) if row else 0


def drop(connection: DriverConnection, partition: Partition, retention: Retention) -> Dropped | None:
    """Do the three steps; None: too many jobs of it are to stay.

    Args:
        connection: In autocommit mode; its role owns the tables.
        partition: Which.
        retention: For tenants that have no rule of their own; from a job's end.

    Raises:
        psycopg.errors.LockNotAvailable: Somebody uses the tables for long; nothing was done.
    """
    ids = kept(connection, partition, retention)
    if ids is None:
        return None
    detach(connection, partition, ids)
    return Dropped(kept=len(ids), jobs=drop_detached(connection, partition, retention))


def _save(connection: DriverConnection, name: str, ids: list[Any], *, opens: bool = True) -> None:
    """Copy jobs with their steps to the default partition: no new jobs, so without what triggers make of such."""
    for table in PARTITIONED:
        off = sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER")
        connection.execute(off.format(table_of(table, DEFAULT)))
    for table, statement in (("jobs", _SAVE_JOBS), ("job_details", _SAVE_STEPS)):
        if not opens:
            statement = statement.replace("job.completed_at IS NULL OR ", "")
        columns = connection.execute(_COLUMNS, {"table": qualified(connection, table)}).fetchall()
        connection.execute(
            sql.SQL(statement).format(
                default=table_of(table, DEFAULT),
                jobs=table_of("jobs", name),
                steps=table_of("job_details", name),
                columns=sql.SQL(", ").join(sql.Identifier(column) for (column,) in columns),
            ),
            {"kept": ids},
        )
    for table in PARTITIONED:
        on = sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER")
        connection.execute(on.format(table_of(table, DEFAULT)))


def _params(retention: Retention) -> dict[str, Any]:
    return {
        "statuses": [status.value for status in retention],
        "keeps": list(retention.values()),
        "final": sorted(FINAL),
    }

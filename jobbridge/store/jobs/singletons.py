"""Who holds a singleton key: at most one job of a tenant that has not ended, or whose work has not stopped.

A job that is cancelled while it runs keeps its key until its attempt has come to its end, or its worker is gone: what
runs next does not run beside it. What if its process dies after the cancel, or its end is told twice, or before the
cancel? It is the end that frees the key, of whatever kind, and it changes nothing the second time; an end that came
first has ended the job, and then nothing was cancelled; for a process that can tell nothing its worker can, or is gone.

Three statements, and not one, because a statement sees the tables as they were when it began: one that waited for
another caller of the same key would not see the job which that caller made. `HOLD` waits, `HOLDER` begins after it.

What if the process dies between two steps? All are in the transaction that makes the job. What a caller of the
same key waits for is the end of that transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

from jobbridge.core.keys import Engine, JobKey
from jobbridge.core.status import WAITING, JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.fetch import first_tuple, tuples
from jobbridge.store.statuses import MAY_BE_AT_WORK, has_stopped, listed

#: Locks the key until the transaction ends, whoever has it. `xmax = 0`: it was inserted, so nobody had it.
HOLD: LiteralString = """
INSERT INTO public.job_singletons AS singleton (tenant, key, job_id)
VALUES (%(tenant)s, %(key)s, %(job_id)s)
ON CONFLICT (tenant, key) DO UPDATE SET taken_at = singleton.taken_at
RETURNING job_id, xmax = 0
"""

#: The job may have been sent again without the key: then it does not hold it.
HOLDER: LiteralString = f"""
SELECT task_id, status, runner_type, external_id, worker_number
FROM public.jobs
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND singleton_key = %(key)s AND {MAY_BE_AT_WORK}
"""

#: For who is unique only while another one waits.
WAITING_HOLDER: LiteralString = f"{HOLDER} AND status IN ({listed(WAITING - {JobStatus.RETRYING})})"

#: For who is unique for a time: whatever became of the other one, if the key was taken so short a time ago. It is told
#: as it was; that it has ended changes nothing.
RECENT_HOLDER: LiteralString = """
SELECT job.task_id, job.status, job.runner_type, job.external_id, job.worker_number
FROM public.jobs AS job
JOIN public.job_singletons AS singleton ON singleton.tenant = job.tenant AND singleton.job_id = job.job_id
WHERE job.tenant = %(tenant)s AND job.job_id = %(job_id)s AND singleton.key = %(key)s
  AND singleton.taken_at > clock_timestamp() - %(period)s::interval
"""

#: Of the job that waits with a key: since when one waits, each in the place of the one before.
SINCE: LiteralString = f"""
SELECT coalesce((job.metadata ->> 'debounced_since')::timestamptz, job.created_at)
FROM public.job_singletons AS singleton
JOIN public.jobs AS job ON job.tenant = singleton.tenant AND job.job_id = singleton.job_id
WHERE singleton.tenant = %(tenant)s AND singleton.key = %(key)s AND job.singleton_key = %(key)s
  AND job.status IN ({listed(WAITING - {JobStatus.RETRYING})})
"""

#: For those who replace it: it does not start before they have.
LOCKED: LiteralString = " FOR UPDATE"

TAKE: LiteralString = """
UPDATE public.job_singletons
SET job_id = %(job_id)s, taken_at = clock_timestamp()
WHERE tenant = %(tenant)s AND key = %(key)s
"""

#: Of a key that outlives its job.
KEEP: LiteralString = """
UPDATE public.job_singletons
SET kept_until = taken_at + %(period)s::interval
WHERE tenant = %(tenant)s AND key = %(key)s
"""

#: A key that is being taken at this moment has a new `taken_at` when this statement comes to look at it again. A table
#: of before the rules (0029) has no `kept_until`.
PRUNE: LiteralString = f"""
DELETE FROM public.job_singletons AS singleton
WHERE taken_at < clock_timestamp() - %(older_than)s::interval
  AND coalesce((to_jsonb(singleton) ->> 'kept_until')::timestamptz < clock_timestamp(), true)
  AND NOT EXISTS (
    SELECT FROM public.jobs
    WHERE jobs.job_id = singleton.job_id AND jobs.tenant = singleton.tenant
      AND jobs.singleton_key = singleton.key AND {MAY_BE_AT_WORK}
      AND (jobs.status <> 'cancelled' OR EXISTS (
        SELECT FROM public.job_workers AS worker WHERE worker.number = jobs.worker_number
      ))
  )
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """The job that has a key and has not ended; if it is cancelled, its work goes on for a moment."""

    key: JobKey
    task_id: str
    status: JobStatus
    runner_type: Engine
    external_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """A key that is locked.

    Attributes:
        holder: The other job that has it; None: it is free.
        is_new: Nobody ever had it, and now it is this job's.
    """

    holder: Holder | None
    is_new: bool


def hold(
    connection: DriverConnection,
    job: JobKey,
    key: str,
    *,
    replaces: bool,
    while_waiting: bool = False,
    period: timedelta | None = None,
) -> Hold:
    """Lock a key until the transaction ends, waiting for another one that does so.

    Args:
        connection: In a transaction.
        job: Who wants it.
        key: The singleton key.
        replaces: Keep the job that has it from starting meanwhile.
        while_waiting: Who has begun does not have it any more.
        period: Who took it so short a time ago has it, even if it has ended.
    """
    params = {"tenant": job.tenant, "key": key, "job_id": job.job_id}
    [(job_id, is_new)] = tuples(connection, HOLD, params)
    if is_new or job_id == job.job_id:
        return Hold(holder=None, is_new=is_new)
    asked = params | {"job_id": job_id, "period": period}
    if period is not None and (recent := first_tuple(connection, RECENT_HOLDER, asked)) is not None:
        return Hold(holder=_holder(job, job_id, *recent[:4]), is_new=False)
    holder = WAITING_HOLDER if while_waiting else HOLDER
    found = first_tuple(connection, holder + LOCKED if replaces else holder, asked)
    if found is None or has_stopped(connection, found[1], found[4]):
        return Hold(holder=None, is_new=False)
    return Hold(holder=_holder(job, job_id, *found[:4]), is_new=False)


def waits_since(connection: DriverConnection, job: JobKey, key: str) -> datetime | None:
    """Tell since when a job waits with that key, or the first of those in whose place it is; None: none waits."""
    found = first_tuple(connection, SINCE, {"tenant": job.tenant, "key": key})
    return None if found is None else found[0]


def take(connection: DriverConnection, job: JobKey, key: str) -> None:
    """Make a key that this transaction locked the job's own."""
    connection.execute(TAKE, {"tenant": job.tenant, "key": key, "job_id": job.job_id})


def keep(connection: DriverConnection, job: JobKey, key: str, period: timedelta) -> None:
    """Have the key outlive its job, until that time has passed since it was taken."""
    connection.execute(KEEP, {"tenant": job.tenant, "key": key, "period": period})


def prune(database: Database, *, older_than: timedelta = timedelta(hours=1)) -> int:
    """Delete the keys of jobs that have ended; gives their number. Reads the whole table."""
    return database.run(lambda own: own.execute(PRUNE, {"older_than": older_than}).rowcount)


def _holder(
    job: JobKey, job_id: UUID, task_id: str, status: str, runner_type: str, external_id: str | None
) -> Holder:
    return Holder(
        key=JobKey(tenant=job.tenant, job_id=job_id),
        task_id=task_id,
        status=JobStatus(status),
        runner_type=Engine.parse(runner_type),
        external_id=external_id,
    )

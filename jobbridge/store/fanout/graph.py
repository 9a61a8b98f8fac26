"""All jobs of one whole: a chain with what its links sent, a group, a chord; as far as a person can look at it.

Found by the root that they have in common, and by the group. Children of a fan-out are counted with their parent, not
told one by one: there may be 100,000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows, tuples
from jobbridge.store.jobs.rows import JobRow

#: Jobs of one whole that are read.
READ = 2_000
#: Jobs that are found by one of the ways, before they are put together.
_FOUND = 2 * READ

#: As in `chain`: each part follows an index of a few jobs, and a fan-out is looked up for each.
_TOGETHER: LiteralString = """
WITH together AS MATERIALIZED (
    (
        SELECT job_id FROM public.jobs
        WHERE tenant = %(tenant)s AND root_id = %(root_id)s AND root_id <> job_id
        ORDER BY created_at, job_id
        LIMIT %(found)s
    )
    UNION
    (
        SELECT job_id FROM public.jobs
        WHERE tenant = %(tenant)s AND group_id = %(group_id)s
        ORDER BY created_at, job_id
        LIMIT %(found)s
    )
    UNION
    SELECT unnest(ARRAY[%(root_id)s, %(job_id)s]::uuid[])
)"""

_NO_CHILD: LiteralString = """(job.job_id = %(job_id)s OR (
    SELECT fan_out.parent_id FROM public.job_families AS fan_out
    WHERE fan_out.tenant = job.tenant AND fan_out.parent_id = job.parent_id
) IS NULL)"""

JOBS: LiteralString = f"""{_TOGETHER}
SELECT job.job_id, job.type, job.status, job.created_at, job.run_at, job.started_at, job.completed_at, job.parent_id,
    job.group_id, job.chord_id, job.chord_index, left(job.error, 300) AS error
FROM together
JOIN public.jobs AS job ON job.tenant = %(tenant)s AND job.job_id = together.job_id
WHERE {_NO_CHILD}
ORDER BY job.created_at, job.job_id
LIMIT %(read)s
"""

CHORDS: LiteralString = """
SELECT chord_id, counted, size + added FROM public.job_chords WHERE chord_id = ANY(%(chord_ids)s)
"""

CHILDREN: LiteralString = """
SELECT member.parent_id, member.status, count(*)
FROM public.job_family_members AS member
WHERE member.parent_tenant = %(tenant)s AND member.parent_id = ANY(%(job_ids)s)
GROUP BY member.parent_id, member.status
"""

#: Those of them that something can be done to.
IN_STATUS: LiteralString = f"""{_TOGETHER}
SELECT job.job_id
FROM together
JOIN public.jobs AS job ON job.tenant = %(tenant)s AND job.job_id = together.job_id
WHERE job.status = ANY(%(statuses)s) AND {_NO_CHILD}
ORDER BY job.created_at, job.job_id
LIMIT %(read)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphJob:
    """A job of a whole, in short.

    Attributes:
        parent_id: What sent it: of a link, the one before.
        chord_index: Its place in the chord's header; None: it is no part of one.
    """

    job_id: UUID
    type: str
    status: JobStatus
    created_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    parent_id: UUID | None
    group_id: str | None
    chord_id: str | None
    chord_index: int | None
    error: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """A whole, the oldest jobs first.

    Attributes:
        is_cut: There are more jobs than were read.
        chords: Those whose bodies wait: how many parts have ended, and of how many, if that is known.
        children: Parents of fan-outs: how many children are in which status.
    """

    jobs: Sequence[GraphJob]
    is_cut: bool
    chords: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    children: Mapping[UUID, Mapping[str, int]] = field(default_factory=dict)


def whole_of(database: Database, job: JobRow) -> Whole:
    """Give the whole that a job is of; of the same tenant."""
    return database.run(lambda own: _whole(own, job))


def _whole(own: DriverConnection, job: JobRow) -> Whole:
    found = all_rows(own, _graph_job, JOBS, _params(job) | {"read": READ + 1})
    jobs = found[:READ]
    chord_ids = {each.chord_id for each in jobs if each.chord_id is not None}
    chords: dict[str, tuple[int, int | None]] = {}
    if chord_ids:
        for chord_id, counted, size in tuples(own, CHORDS, {"chord_ids": sorted(chord_ids)}):
            chords[chord_id] = (counted, size)
    children: dict[UUID, dict[str, int]] = {}
    told = {"tenant": job.tenant, "job_ids": [each.job_id for each in jobs]}
    for parent_id, status, number in tuples(own, CHILDREN, told):
        children.setdefault(parent_id, {})[status] = number
    return Whole(jobs=jobs, is_cut=len(found) > READ, chords=chords, children=children)


def of_whole(
    database: Database, job: JobRow, statuses: Sequence[JobStatus], *, limit: int = READ
) -> list[JobKey]:
    """Give those of the whole that are in one of these statuses, the oldest first."""
    params = _params(job) | {"statuses": [status.value for status in statuses], "read": limit}
    found = database.run(lambda own: tuples(own, IN_STATUS, params))
    return [JobKey(tenant=TenantId(job.tenant), job_id=job_id) for (job_id,) in found]


def _params(job: JobRow) -> dict[str, Any]:
    return {
        "tenant": job.tenant,
        "job_id": job.job_id,
        "root_id": job.root_id or job.job_id,
        "group_id": job.group_id,
        "found": _FOUND,
    }


def _graph_job(*, status: str, **columns: Any) -> GraphJob:
    return GraphJob(status=JobStatus(status), **columns)

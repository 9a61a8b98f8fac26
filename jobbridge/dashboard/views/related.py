"""Whom a job belongs to: who sent it, its chain and group, and its children; of each only what the visitor may see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from jobbridge.core.keys import JobKey, TenantId
from jobbridge.store.fanout.chain import chain_of

if TYPE_CHECKING:
    from jobbridge.core.fanout import ChildCounts, Member
    from jobbridge.dashboard.access.request_context import RequestContext
    from jobbridge.store.fanout.chain import ChainJob
    from jobbridge.store.jobs.rows import JobRow

#: So many children, and so many of a chain and a group.
SHOWN = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """A child of a fan-out, with its error if it failed."""

    member: Member
    error: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Related:
    """Those to whom a job belongs.

    Attributes:
        sender: Who sent it; None: nobody, or it is not there any more, or not theirs to see.
        first: The first of all, if that is another one.
        together: The jobs of its chain and group, itself among them; empty if there are no others.
        is_more: There are more of them than are shown.
        counts: Of its children.
    """

    sender: JobKey | None
    first: JobKey | None
    together: Sequence[ChainJob]
    is_more: bool
    counts: ChildCounts | None
    children: Sequence[Child]

    def says(self, job: JobRow, other: ChainJob) -> str:
        """Say in a word or two what another one is to a job."""
        if other.job_id == job.job_id:
            return "this job"
        if self.sender is not None and other.job_id == self.sender.job_id:
            return "sent this job"
        if other.parent_id == job.job_id:
            return "sent by this job"
        return "the first" if other.job_id == job.root_id else ""


def related_to(context: RequestContext, job: JobRow) -> Related:
    """Look for those to whom a job belongs."""
    together = chain_of(context.app.database, job, limit=SHOWN + 1)
    known = {other.job_id: JobKey(tenant=job.tenant, job_id=other.job_id) for other in together}
    sender = _seen(context, job, job.parent_id, known)
    first = None if job.root_id == job.parent_id else _seen(context, job, job.root_id, known)
    counts = context.app.fan_outs.counts(job.key)
    return Related(
        sender=sender,
        first=first,
        together=together[:SHOWN] if len(together) > 1 else [],
        is_more=len(together) > SHOWN,
        counts=counts,
        children=[] if counts is None else _children(context, job),
    )


def _seen(
    context: RequestContext, job: JobRow, job_id: UUID | None, known: dict[UUID, JobKey]
) -> JobKey | None:
    """Give another job, whose tenant may be another one: a child of a fan-out may be of any."""
    if job_id is None or job_id == job.job_id:
        return None
    if job_id in known:
        return known[job_id]
    own = context.app.jobs.get(JobKey(tenant=job.tenant, job_id=job_id))
    row = own if own is not None or context.principal.tenant is not None else context.app.jobs.find(job_id)
    return None if row is None else row.key


def _children(context: RequestContext, job: JobRow) -> list[Child]:
    members = context.app.fan_outs.members(job.key, limit=SHOWN)
    seen = [member for member in members if context.principal.sees(member.key.tenant)]
    by_tenant: dict[TenantId, list[UUID]] = defaultdict(list)
    for member in seen:
        by_tenant[member.key.tenant].append(member.key.job_id)
    jobs = {
        row.key: row
        for tenant, ids in by_tenant.items()
        for row in context.app.jobs.some(tenant, ids).values()
    }
    return [
        Child(member=member, error=jobs[member.key].error if member.key in jobs else None) for member in seen
    ]

"""What somebody has to look at: of the whole installation what the checks found, of one tenant what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.broker.admin.dead_letters import dead_lately
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.diagnosis.findings import Check, age, some
from jobbridge.store.monitor.search import Search
from jobbridge.store.schedules.repository import ScheduleStore
from jobbridge.store.workers.queue_pauses import QueuePauses

if TYPE_CHECKING:
    from jobbridge.dashboard.access.request_context import RequestContext

#: Dead letters and findings older than this are history.
_LATELY = timedelta(days=1)
#: A dead worker's job begins anew elsewhere, or the reaper ends it, within this time.
_RECOVERY = timedelta(seconds=45)
#: So many running jobs of one tenant are looked at.
_LOOKED_AT = 100
#: A schedule that is so late is not going to fire by itself.
_PATIENCE = timedelta(minutes=1)

#: Check → what it says in a word, and the page where one goes on.
_PLACES: dict[str, tuple[str, str, dict[str, str]]] = {
    "workers": ("Queues nobody serves", "workers", {}),
    "tasks": ("Tasks no worker knows", "jobs", {"status": "queued"}),
    "delivery": ("Not delivered", "jobs", {"status": "pending"}),
    "schedules": ("Schedules", "schedules", {}),
    "fallback": ("Fallen back", "jobs", {"engine": "celery"}),
    "held jobs": ("Stuck jobs", "jobs", {"status": "processing"}),
    "waits": ("Not woken", "jobs", {"status": "waiting"}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """Something to look at.

    Attributes:
        kind: `bad`: jobs do not run because of it; `warn`: somebody wanted it so, or it is over.
        title: What it is, in a word or two.
        path: Where one goes on.
        hint: What to do.
    """

    kind: str
    title: str
    text: str
    path: str | None = None
    hint: str = ""


def alerts(context: RequestContext) -> list[Alert]:
    """Give what the visitor has to look at, worst first."""
    if context.tenant is not None:
        found = list(_of_tenant(context, context.tenant))
    else:
        found = [
            *_of_checks(context),
            *_paused_queues(context),
            *_suspensions(context),
            *_dead_letters(context),
        ]
    return sorted(found, key=lambda alert: alert.kind != "bad")


def _of_checks(context: RequestContext) -> Iterator[Alert]:
    """Tell what the quick look found, and what the last whole one found elsewhere."""
    check_up = context.dashboard.check_up
    quick = check_up.quick.soon()
    if quick is None:
        yield Alert(kind="warn", title="Still looking", text="What needs attention is being looked for.")
        return
    found = {check.name: check for check in quick.bad}
    whole = check_up.whole.last
    if whole is not None and whole.looked_at > datetime.now(UTC) - _LATELY:
        known = {check.name for check in quick.checks}
        found |= {check.name: check for check in whole.bad if check.name not in known}
    for check in found.values():
        yield _of_check(context, check)


def _of_check(context: RequestContext, check: Check) -> Alert:
    title, page, query = _PLACES.get(check.name, (check.name.capitalize(), "health", {}))
    return Alert(
        kind="warn" if check.name == "fallback" else "bad",
        title=title,
        text=check.found,
        path=context.path(page, query=query),
        hint=check.hint,
    )


def _paused_queues(context: RequestContext) -> Iterator[Alert]:
    paused = QueuePauses(context.app.database).all()
    if paused:
        told = [f"{pause.queue!r} for {age(pause.paused_at)}" for pause in paused]
        yield Alert(
            kind="warn",
            title="Paused queues",
            text=f"Workers take nothing new from {some(told, limit=5)}.",
            path=context.path("workers", query={"state": "paused"}),
        )


def _suspensions(context: RequestContext) -> Iterator[Alert]:
    suspended = context.app.tenants.suspended(limit=6)
    if suspended:
        yield Alert(
            kind="warn",
            title="Suspended tenants",
            text=f"The jobs of {some([row.tenant for row in suspended], limit=5)} do not start.",
            path=context.path("tenants", query={"state": "suspended"}),
        )


def _dead_letters(context: RequestContext) -> Iterator[Alert]:
    if not context.app.shares_database_with_broker:
        return
    dead = context.app.database.run(lambda own: dead_lately(own, within=_LATELY))
    if dead:
        told = some([f"{row.letters} of {row.queue!r}" for row in dead])
        yield Alert(
            kind="warn",
            title="Dead letters",
            text=f"Messages that were given up within the last day: {told}. The last one {age(dead[0].last_at)} ago.",
            path=context.path("jobs", query={"status": JobStatus.FAILED.value, "since": "24h"}),
        )


def _of_tenant(context: RequestContext, tenant: TenantId) -> Iterator[Alert]:
    state = context.app.tenants.suspension(tenant)
    if state is not None:
        reason = f": {state.reason}" if state.reason else ""
        yield Alert(
            kind="bad",
            title="Suspended",
            text=f"Jobs do not start since {age(state.suspended_at)} ago{reason}. Those that were due became skipped.",
            path=_jobs(context, tenant, JobStatus.SKIPPED),
        )
    yield from _left_behind(context, tenant)
    late = datetime.now(UTC) - _PATIENCE
    for row in ScheduleStore(context.app.database).list(tenant=tenant):
        if not row.paused and row.due_at is not None and row.due_at < late:
            yield Alert(
                kind="bad",
                title="Overdue schedule",
                text=f"{row.name!r} was to fire {age(row.due_at)} ago, and did not.",
                path=context.path("schedules", query=context.of_tenant(tenant)),
            )


def _left_behind(context: RequestContext, tenant: TenantId) -> Iterator[Alert]:
    """Tell of jobs whose worker is gone, and of those that another engine took; the worker is not theirs to know."""
    running = context.dashboard.monitor.page(
        Search(tenant=tenant, statuses=[JobStatus.PROCESSING]), limit=_LOOKED_AT
    ).jobs
    living = {worker.number for worker in context.app.workers.alive()} if running else set()
    silent_since = datetime.now(UTC) - _RECOVERY
    stuck = [
        job
        for job in running
        if job.worker_number is not None and job.worker_number not in living and job.updated_at < silent_since
    ]
    if stuck:
        named = some([f"{job.job_id} ({job.type})" for job in stuck])
        yield Alert(
            kind="bad",
            title="Stuck jobs",
            text=f"The worker of a running job is gone: {named}. They run again, or fail, when that is settled.",
            path=_jobs(context, tenant, JobStatus.PROCESSING),
        )
    fallen = context.app.jobs.fallen_back(within=_LATELY, tenant=tenant, limit=6)
    if fallen:
        named = some([f"{row.key.job_id} ({row.type})" for row in fallen])
        yield Alert(
            kind="warn",
            title="Fallen back",
            text=f"The other engine took jobs within the last day, since theirs could not be reached: {named}.",
            path=context.path(
                "jobs", query=context.of_tenant(tenant) | {"engine": Engine.CELERY.value, "since": "24h"}
            ),
        )


def _jobs(context: RequestContext, tenant: TenantId, status: JobStatus) -> str:
    return context.path("jobs", query=context.of_tenant(tenant) | {"status": status.value})

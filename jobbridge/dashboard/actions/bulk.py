"""Cancel or retry many jobs: first it is shown how many and which, then it is done to exactly those.

What is done to is fixed when the number is shown: the ids are in the form. A job that has changed meanwhile is told
of, and left alone. A request works for some seconds; what is left is offered to go on with.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

from kombu.exceptions import OperationalError
from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.responses import Response

from jobbridge.core.access import Role
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.status import OPEN, JobStatus
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule, storable
from jobbridge.dashboard.actions.allowed_actions import RETRYABLE
from jobbridge.dashboard.errors import words
from jobbridge.dashboard.views import filters
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.store.jobs.rows import JobRow
    from jobbridge.store.monitor.search import Position, Search

Action = Literal["cancel", "retry"]

#: Jobs of one confirmation.
MOST = 1_000
#: Seconds that one request works.
SECONDS = 10.0
_PAGE = 200
_SAMPLE = 10
_REFUSALS_SHOWN = 10

ELIGIBLE: Mapping[Action, frozenset[JobStatus]] = {
    "cancel": OPEN,
    "retry": RETRYABLE,
}


@dataclass(slots=True)
class Tally:
    """What became of the jobs of a bulk action."""

    done: int = 0
    ended_before: int = 0
    gone: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    left: list[JobKey] = field(default_factory=list)


def bulk(context: RequestContext) -> Response:
    """Show what would be done; if that is confirmed, do it."""
    action = _action(context.form.get("action", ""))
    if context.form.get("confirmed") == "yes":
        return _do(context, action, _keys(context, context.form.get("keys", "").split("\n")))
    if context.form.get("all") == "yes":
        jobs, more, untouched = _matching(context, action)
    else:
        jobs, more, untouched = _selected(context, action)
    return context.dashboard.page(
        context,
        "bulk.html",
        action=action,
        jobs=jobs[:_SAMPLE],
        number=len(jobs),
        keys="\n".join(_written(job.key) for job in jobs),
        more=more,
        untouched=untouched,
        filters=context.form.get("filters", ""),
        is_all=context.form.get("all") == "yes",
    )


# -- which


def _matching(context: RequestContext, action: Action) -> tuple[list[JobRow], bool, int]:
    query = ImmutableMultiDict(parse_qsl(context.form.get("filters", "")))
    search = filters.search_of(query, _tenant(context, query.get("tenant", "")))
    wanted = ELIGIBLE[action] & (frozenset(search.statuses) if search.statuses else frozenset(JobStatus))
    if not wanted:
        return [], False, 0
    found = _collect(context, replace(search, statuses=sorted(wanted)))
    return found[:MOST], len(found) > MOST, 0


def _collect(context: RequestContext, search: Search) -> list[JobRow]:
    found: list[JobRow] = []
    before: Position | None = None
    while len(found) <= MOST:
        page = context.dashboard.monitor.page(search, before=before, limit=_PAGE)
        found += page.jobs
        if page.next is None:
            break
        before = page.next
    return found


def _selected(context: RequestContext, action: Action) -> tuple[list[JobRow], bool, int]:
    rows = [context.app.jobs.get(key) for key in _keys(context, context.form.getlist("job"))]
    known = [row for row in rows if row is not None]
    jobs = [row for row in known if row.status in ELIGIBLE[action]]
    return jobs, False, len(known) - len(jobs)


def _keys(context: RequestContext, texts: Iterable[str]) -> list[JobKey]:
    """Read which jobs are meant; what somebody else's tenant has is none that there is."""
    keys: list[JobKey] = []
    for text in texts:
        # A line's end is no part of a tenant's name; a blank at its end is.
        job_id, _, tenant = text.strip("\r").partition(" ")
        if not job_id:
            continue
        try:
            key = JobKey(tenant=context.dashboard.tenant_ids.known(tenant), job_id=UUID(job_id))
        except ValueError:
            raise HTTPException(400, f"{job_id!r} is no id of a job.") from None
        if context.principal.sees(key.tenant):
            keys.append(key)
    return list(dict.fromkeys(keys))[:MOST]


def _tenant(context: RequestContext, asked: str) -> TenantId | None:
    tenant = context.principal.tenant or storable(asked)
    return context.dashboard.tenant_ids.known(tenant) if tenant else None


def _written(key: JobKey) -> str:
    return f"{key.job_id} {key.tenant}"


def _action(text: str) -> Action:
    for action in get_args(Action):
        if action == text:
            return action  # type: ignore[no-any-return]  # one of the literals
    raise HTTPException(400, f"The action is {text!r}; it must be one of {', '.join(get_args(Action))}.")


# -- do it


def _do(context: RequestContext, action: Action, keys: Sequence[JobKey]) -> Response:
    reason = context.form.get("reason", "").strip() or None
    bulk_id, tally = str(uuid4()), Tally()
    until = time.monotonic() + SECONDS
    for number, key in enumerate(keys):
        if time.monotonic() > until:
            tally.left = list(keys[number:])
            break
        _do_one(context, action, key, reason, bulk_id, tally)
    context.note(
        f"bulk {action}",
        tenant=context.principal.tenant,
        subject=bulk_id,
        reason=reason,
        details={
            "done": tally.done, "ended_before": tally.ended_before, "gone": tally.gone,
            "refused": sum(tally.refused.values()), "left": len(tally.left),
        },
    )  # fmt: skip
    return context.dashboard.page(
        context,
        "bulk_done.html",
        action=action,
        tally=tally,
        refusals=tally.refused.most_common(_REFUSALS_SHOWN),
        left="\n".join(map(_written, tally.left)),
        reason=reason or "",
        filters=context.form.get("filters", ""),
    )


def _do_one(
    context: RequestContext, action: Action, key: JobKey, reason: str | None, bulk_id: str, tally: Tally
) -> None:
    row = context.app.jobs.get(key)
    if row is None:
        tally.gone += 1
        return
    outcome = "done"
    try:
        if action == "cancel":
            by = context.principal.name
            is_done = context.app.cancel_job(key.job_id, key.tenant, reason=reason, cancelled_by=by)
            outcome = "done" if is_done else "ended before"
        else:
            context.app.retry_job(key.job_id, key.tenant)
    except (JobBridgeError, OperationalError) as error:
        outcome = "refused"
        tally.refused[_kind(error, row)] += 1
    tally.done += outcome == "done"
    tally.ended_before += outcome == "ended before"
    context.note(action, job=key, outcome=outcome, reason=reason, details={"bulk": bulk_id})


def _kind(error: JobBridgeError | OperationalError, row: JobRow) -> str:
    """Say a refusal so that many alike are counted together."""
    return words(error).text.replace(str(row.job_id), "…")


RULES = (Rule("/jobs/bulk", "bulk", bulk, Role.OPERATOR, methods=POST, form_limit=512 * 1024),)

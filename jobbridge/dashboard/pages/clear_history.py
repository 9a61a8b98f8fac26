"""Clearing history: first what would go, then, when somebody has typed a word, it goes, some seconds at a time.

What is open, runs or recurs is never touched.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.responses import Response

from jobbridge.core.access import Role
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule
from jobbridge.store.workers.clear_history import BATCH, BEGINNING, Clearance, Place, clear, count

#: What is to be typed.
WORD = "clear"
#: Seconds of one request; after that there is a button to go on.
SECONDS = 5.0
_LONGEST_DAYS = 36_600
_ENDED = [status for status in JobStatus if status in FINAL]


def clearing(context: RequestContext) -> Response:
    """What would go."""
    query = context.request.query_params
    days = query.get("days", "")
    if not days:
        return _page(context, asked=None, days="90", chosen=set(_ENDED))
    before = _hour(datetime.now(UTC) - timedelta(days=_days(days)))
    asked = Clearance(statuses=_statuses(query.getlist("status")), before=before, tenant=context.tenant)
    return _page(context, asked=asked, days=days, chosen=set(asked.statuses))


def clear_history(context: RequestContext) -> Response:
    """Delete some of it, and say how far that came."""
    asked, after = _asked(context), _place(context.form.get("after", ""))
    if context.form.get("word", "").strip().lower() != WORD:
        _note(context, asked, 0, "refused")
        return _page(context, asked=asked, problem=f"Type {WORD} to confirm.", status=400)
    deleted, until, place = 0, time.monotonic() + SECONDS, after
    while True:
        portion = clear(context.app.database, asked, after=place)
        deleted += 0 if portion is None else portion.jobs
        is_over = portion is None or portion.read < BATCH
        place = place if portion is None else portion.last
        if is_over or time.monotonic() > until:
            break
    _note(context, asked, deleted, "done" if is_over else "done in part")
    return _page(context, asked=asked, deleted=deleted, goes_on=None if is_over else _place_text(place))


def _page(context: RequestContext, *, asked: Clearance | None, status: int = 200, **values: Any) -> Response:
    months = [] if asked is None else count(context.app.database, asked)
    statuses = [status for status in _ENDED if any(cell.status is status for cell in months)]
    table: dict[datetime, dict[JobStatus, int]] = {cell.month: {} for cell in months}
    for cell in months:
        table[cell.month][cell.status] = cell.jobs
    shown = {"days": "", "chosen": set(), "problem": "", "deleted": None, "goes_on": None} | values
    own = context.principal.tenant
    query = {} if asked is None or asked.tenant is None or own else {"tenant": asked.tenant}
    return context.dashboard.page(
        context,
        "clearing.html",
        status=status,
        asked=asked,
        months=table,
        columns=statuses,
        total=sum(cell.jobs for cell in months),
        statuses=_ENDED,
        word=WORD,
        action=context.path("clear_history") + ("?" + urlencode(query) if query else ""),
        tenant=context.tenant,
        **shown,
    )


def _asked(context: RequestContext) -> Clearance:
    try:
        before = datetime.fromisoformat(context.form.get("before", ""))
    except ValueError:
        raise HTTPException(400, "The form does not say before when. Begin anew.") from None
    if before.tzinfo is None or before > datetime.now(UTC) or before.year < 1970 or before != _hour(before):
        raise HTTPException(400, "The form says a time that cannot be. Begin anew.")
    return Clearance(statuses=_statuses(context.form.getlist("status")), before=before, tenant=context.tenant)


def _statuses(names: list[str]) -> list[JobStatus]:
    known = {status.value: status for status in _ENDED}
    if not names or not set(names) <= set(known):
        raise HTTPException(400, f"Choose statuses among {', '.join(known)}: what has not ended stays.")
    return [known[name] for name in names]


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= _LONGEST_DAYS):
        raise HTTPException(400, f"days is {text[:20]!r}; it must be 1 to {_LONGEST_DAYS}.")
    return int(text)


def _hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _place(text: str) -> Place:
    if not text:
        return BEGINNING
    at, _, job_id = text.partition("_")
    try:
        return datetime.fromisoformat(at), UUID(job_id)
    except ValueError:
        raise HTTPException(400, "The form says no place to go on from. Begin anew.") from None


def _place_text(place: Place) -> str:
    return f"{place[0].isoformat()}_{place[1]}"


def _note(context: RequestContext, asked: Clearance, deleted: int, outcome: str) -> None:
    details = {
        "statuses": sorted(asked.statuses),
        "created before": asked.before.isoformat(),
        "jobs": deleted,
    }
    context.note("clear history", outcome=outcome, tenant=asked.tenant, details=details)


RULES = (
    Rule("/clearing", "clearing", clearing, Role.ADMIN),
    Rule("/clearing/clear", "clear_history", clear_history, Role.ADMIN, methods=POST),
)

"""The jobs that match a filter, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, JobKey
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.access.request_context import RequestContext, Rule, uuid_or_none
from jobbridge.dashboard.views.columns import COOKIE, available, chosen, remember, shown
from jobbridge.dashboard.views.filters import (
    SINCE,
    filters_of,
    limit_of,
    position_of,
    position_text,
    search_of,
)
from jobbridge.dashboard.views.saved_filters import COOKIE as SAVED_COOKIE
from jobbridge.dashboard.views.saved_filters import LONGEST_NAME, forget, save, saved

if TYPE_CHECKING:
    from jobbridge.dashboard.views.columns import Column
    from jobbridge.store.jobs.rows import JobRow
    from jobbridge.store.monitor.search import Search

_YEAR = 365 * 24 * 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What is shown of one job in one column."""

    column: Column
    value: Any

    @property
    def is_instant(self) -> bool:
        return isinstance(self.value, datetime)


def jobs(context: RequestContext) -> Response:
    """A page of the jobs that match; an id leads to its job."""
    query = context.request.query_params
    if "choose" in query:
        return _remember_columns(context)
    if "save" in query or "forget" in query:
        return _save_or_forget(context)
    search = search_of(query, context.tenant)
    if (found := _by_id(context, search)) is not None:
        return found
    page = context.dashboard.monitor.page(search, before=position_of(query), limit=limit_of(query))
    filters = filters_of(query)
    kept = filters + [(name, value) for name, value in query.multi_items() if name == "limit" and value]
    following = position_text(page.next)
    columns = chosen(context)
    return context.dashboard.page(
        context,
        "jobs.html",
        rows=[(job, _address(context, job), _cells(job, columns)) for job in page.jobs],
        columns=columns,
        all_columns=available(context),
        searched_to=page.searched_to,
        pairs=filters,
        filters=urlencode(filters),
        here=context.path("jobs", query=kept or None),
        older=None if following is None else context.path("jobs", query=[*kept, ("before", following)]),
        saved=[
            (each, context.path("jobs", query=each.filters), each.filters == filters)
            for each in saved(context)
        ],
        longest_name=LONGEST_NAME,
        is_newest=not query.get("before"),
        is_filtered=any(name != "tenant" for name, _ in filters),
        query=query,
        chosen=set(query.getlist("status")),
        statuses=list(JobStatus),
        engines=list(Engine),
        times=list(SINCE),
        may_act=context.principal.may(Role.OPERATOR),
    )


def _by_id(context: RequestContext, search: Search) -> Response | None:
    if not search.text or not (job_id := uuid_or_none(search.text)):
        return None
    tenant, store = search.tenant, context.app.jobs
    row = store.find(job_id) if tenant is None else store.get(JobKey(tenant=tenant, job_id=job_id))
    if row is None:
        return None  # the id of a user, a parent, or of the engine: the search sees to it
    whose = context.of_tenant(search.tenant or None)
    return RedirectResponse(context.path("job", job_id=job_id, query=whose), status_code=303)


def _address(context: RequestContext, job: JobRow) -> str:
    return context.path("job", job_id=job.job_id, query=context.of_tenant(job.tenant))


def _cells(job: JobRow, columns: list[Column]) -> list[Cell]:
    return [Cell(column=column, value=shown(column, job)) for column in columns]


def _remember_columns(context: RequestContext) -> Response:
    query = context.request.query_params
    kept = filters_of(query)
    response = RedirectResponse(context.path("jobs", query=kept or None), status_code=303)
    if query.get("choose") == "usual":
        response.delete_cookie(COOKIE, path=context.path("overview"))
        return response
    context.set_cookie(response, COOKIE, remember(query.getlist("column")), seconds=_YEAR)
    return response


def _save_or_forget(context: RequestContext) -> Response:
    """Have the browser keep the filter of the address under a name, or no more."""
    query = context.request.query_params
    if context.request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        raise HTTPException(403, "Another site sent you here: filters are saved and removed on this page.")
    kept = filters_of(query)
    written = save(context, query["save"], kept) if "save" in query else forget(context, query["forget"])
    response = RedirectResponse(context.path("jobs", query=kept or None), status_code=303)
    if written is None:
        response.delete_cookie(SAVED_COOKIE, path=context.path("overview"))
    else:
        context.set_cookie(response, SAVED_COOKIE, written, seconds=_YEAR)
    return response


RULES = (Rule("/jobs", "jobs", jobs, Role.VIEWER),)

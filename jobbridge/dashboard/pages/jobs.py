"""The jobs that match a filter, newest first."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.dashboard import asking
from jobbridge.dashboard.visits import Rule, Visit, uuid_or_none


def jobs(visit: Visit) -> Response:
    """A page of the jobs that match; an id leads to its job."""
    query = visit.request.query_params
    search = asking.search_of(query, visit.tenant)
    if search.text and (job_id := uuid_or_none(search.text)):
        whose = {"tenant": search.tenant} if search.tenant and visit.principal.tenant is None else None
        return RedirectResponse(visit.path("job", job_id=job_id, query=whose), status_code=303)
    page = visit.dashboard.monitor.page(
        search, before=asking.position_of(query), limit=asking.limit_of(query)
    )
    kept = [(name, value) for name, value in query.multi_items() if name != "before" and value]
    following = asking.position_text(page.next)
    return visit.dashboard.page(
        visit,
        "jobs.html",
        jobs=page.jobs,
        searched_to=page.searched_to,
        older=None if following is None else "?" + urlencode([*kept, ("before", following)]),
        newest="?" + urlencode(kept) if query.get("before") else None,
        is_filtered=any(name not in {"limit", "tenant"} for name, _ in kept),
        query=query,
        chosen=set(query.getlist("status")),
        statuses=list(JobStatus),
        engines=list(Engine),
        times=list(asking.SINCE),
    )


RULES = (Rule(path="/jobs", name="jobs", endpoint=jobs, needs=Role.VIEWER),)

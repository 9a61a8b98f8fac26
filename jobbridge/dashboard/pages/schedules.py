"""What recurs, and when it fires next."""

from __future__ import annotations

from starlette.responses import Response

from jobbridge.core.access import Role
from jobbridge.dashboard.visits import Rule, Visit
from jobbridge.store.schedules import ScheduleStore


def schedules(visit: Visit) -> Response:
    """What recurs, and when it fires next."""
    rows = ScheduleStore(visit.app.database).list(tenant=visit.tenant)
    return visit.dashboard.page(visit, "schedules.html", schedules=rows)


RULES = (Rule(path="/schedules", name="schedules", endpoint=schedules, needs=Role.VIEWER),)

"""The workers that live, by engine, and what they serve."""

from __future__ import annotations

from starlette.responses import Response

from jobbridge.core.access import Role
from jobbridge.dashboard.visits import Rule, Visit


def workers(visit: Visit) -> Response:
    """The workers that live, by engine, and what they serve."""
    rows = visit.app.workers.all()
    return visit.dashboard.page(visit, "workers.html", workers=rows)


RULES = (Rule(path="/workers", name="workers", endpoint=workers, needs=Role.VIEWER, is_global=True),)

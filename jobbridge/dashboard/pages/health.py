"""What `jobbridge doctor` finds."""

from __future__ import annotations

from starlette.responses import Response

from jobbridge.core.access import Role
from jobbridge.dashboard.visits import Rule, Visit
from jobbridge.diagnosis.checks import check_all


def health(visit: Visit) -> Response:
    """What `jobbridge doctor` finds."""
    checks = check_all(visit.app, visit.app.settings)
    return visit.dashboard.page(visit, "health.html", checks=checks)


RULES = (Rule(path="/health", name="health", endpoint=health, needs=Role.OPERATOR, is_global=True),)

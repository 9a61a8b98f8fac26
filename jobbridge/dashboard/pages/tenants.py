"""Which tenants there are."""

from __future__ import annotations

from starlette.responses import Response

from jobbridge.core.access import Role
from jobbridge.dashboard.visits import Rule, Visit


def tenants(visit: Visit) -> Response:
    """Which tenants there are."""
    return visit.dashboard.page(visit, "tenants.html", tenants=visit.app.tenants.all())


RULES = (Rule(path="/tenants", name="tenants", endpoint=tenants, needs=Role.VIEWER, is_global=True),)

"""The API's description: as OpenAPI for tools, as a plain page for people."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from jobbridge.core.access import Role
from jobbridge.dashboard.api.rules import PREFIX, describe
from jobbridge.dashboard.visits import Rule, Visit


def openapi(visit: Visit) -> Response:
    """Give the OpenAPI document."""
    return JSONResponse(_document(visit))


def index(visit: Visit) -> Response:
    """Show what the API has."""
    document = _document(visit)
    operations = [
        (method.upper(), path, told)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    ]
    return visit.dashboard.page(visit, "api.html", operations=operations)


def _document(visit: Visit) -> dict[str, Any]:
    dashboard = visit.dashboard
    if dashboard.description is None:
        dashboard.description = describe(dashboard.router.routes)
    root = str(visit.request.scope.get("root_path", "")).rstrip("/")
    return dashboard.description | {"servers": [{"url": root or "/"}]}


RULES = (
    Rule(path=f"{PREFIX}/openapi.json", name="api_description", endpoint=openapi, needs=None, is_api=True),
    Rule(path="/api", name="api_index", endpoint=index, needs=Role.VIEWER),
)

"""The ASGI application: routes, guard (see `guard`) and headers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles

from jobbridge.core.access import Role
from jobbridge.dashboard import actions, api, probes, showing, signing
from jobbridge.dashboard.guard import guarded
from jobbridge.dashboard.headers import SecurityHeaders
from jobbridge.dashboard.identity import Authenticator
from jobbridge.dashboard.limits import AttemptLimit
from jobbridge.dashboard.pages import health, job, jobs, overview, schedules, tenants, workers
from jobbridge.dashboard.visits import Form, Rule, Visit
from jobbridge.errors import DatabaseUnavailable, JobBridgeError
from jobbridge.store.access import AccessStore
from jobbridge.store.counting import CountStore
from jobbridge.store.monitor import MonitorStore

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent

RULES: Sequence[Rule] = (
    *overview.RULES, *jobs.RULES, *job.RULES, *schedules.RULES, *workers.RULES, *tenants.RULES, *health.RULES,
    *actions.RULES, *signing.RULES, *probes.RULES, *api.RULES,
)  # fmt: skip

#: The pages of the bar at the top: route, text, least role, of the whole installation.
NAVIGATION = (
    ("overview", "Overview", Role.VIEWER, False),
    ("jobs", "Jobs", Role.VIEWER, False),
    ("schedules", "Schedules", Role.VIEWER, False),
    ("workers", "Workers and queues", Role.VIEWER, True),
    ("tenants", "Tenants", Role.VIEWER, True),
    ("health", "Health", Role.OPERATOR, True),
)


class Dashboard:
    """What all requests share.

    Args:
        app: Whose jobs.
        authenticator: Who may come in; by tokens if None.
    """

    def __init__(self, app: Celery, authenticator: Authenticator | None = None) -> None:
        self.app = app
        self.access = AccessStore(app.database)
        self.authenticator = authenticator or Authenticator(self.access)
        self.counts = CountStore(app.database)
        self.monitor = MonitorStore(app.database)
        self.attempts = AttemptLimit()
        self.templates = _templates()
        self.router = Router(
            [
                *(
                    Route(rule.path, guarded(self, rule), methods=rule.methods, name=rule.name)
                    for rule in RULES
                ),
                Mount("/static", StaticFiles(directory=_HERE / "static"), name="static"),
            ]
        )

    def page(self, visit: Visit, template: str, *, status: int = 200, **values: Any) -> Response:
        """Give a page."""
        known = {"visit": visit, "path": visit.path, "who": visit.identity, "navigation": NAVIGATION}
        text = self.templates.get_template(template).render(known | values)
        return HTMLResponse(text, status_code=status)


def make_dashboard(app: Celery, *, authenticator: Authenticator | None = None) -> Starlette:
    """Make the application; it can be mounted under any path.

    Args:
        app: Whose jobs.
        authenticator: Who may come in: by default whoever has a token of `jobbridge tokens create`.
    """
    dashboard = Dashboard(app, authenticator)
    made = Starlette(
        routes=dashboard.router.routes,
        exception_handlers={HTTPException: _told(dashboard), JobBridgeError: _told(dashboard)},
    )
    made.add_middleware(SecurityHeaders)
    made.state.dashboard = dashboard
    return made


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(showing.FILTERS)
    return environment


def _told(dashboard: Dashboard) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def tell(request: Request, error: Exception) -> Response:
        status, text, hint, headers = _words(error)
        if status >= 500:
            logger.warning("dashboard.failed", extra={"path": request.url.path, "error": str(error)})
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"error": text, "hint": hint}, status_code=status, headers=headers)
        visit = Visit(dashboard=dashboard, request=request, identity=None, form=Form())
        page = dashboard.page(visit, "error.html", status=status, status_code=status, text=text, hint=hint)
        page.headers.update(headers)
        return page

    return tell


def _words(error: Exception) -> tuple[int, str, str, Mapping[str, str]]:
    """Say what went wrong; of what is ours to repair, nothing that a stranger could use."""
    match error:
        case HTTPException():
            return error.status_code, error.detail, "", error.headers or {}
        case DatabaseUnavailable():
            return 503, "The database cannot be reached.", "Try again in a moment.", {"Retry-After": "5"}
        case _:
            return 500, "That could not be done.", "The server's log says why.", {}

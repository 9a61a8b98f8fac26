"""The ASGI application: routes, guard (see `guard`) and headers."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from jobbridge.core.access import Role
from jobbridge.dashboard import metrics, probes
from jobbridge.dashboard.access import sign_in
from jobbridge.dashboard.access.guard import guarded
from jobbridge.dashboard.access.headers import SecurityHeaders
from jobbridge.dashboard.access.identity import Authenticator
from jobbridge.dashboard.access.proxies import BehindProxies, UnderPath
from jobbridge.dashboard.access.rate_limits import AttemptLimit
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.dashboard.access.signing import keys_of
from jobbridge.dashboard.access.tenant_ids import TenantIds
from jobbridge.dashboard.actions import bulk, events, whole
from jobbridge.dashboard.actions import jobs as actions
from jobbridge.dashboard.api import routes
from jobbridge.dashboard.api.long_poll import Waiters
from jobbridge.dashboard.api.rules import ApiRule, GuardedRoute
from jobbridge.dashboard.errors import handlers
from jobbridge.dashboard.findings_cache import CheckUp
from jobbridge.dashboard.live import stream
from jobbridge.dashboard.live.broadcaster import Live
from jobbridge.dashboard.merge_counts import Folder
from jobbridge.dashboard.pages import (
    access,
    clear_history,
    dead,
    event_link,
    health,
    job,
    jobs,
    overview,
    public,
    queue,
    rules,
    schedules,
    tenants,
    workers,
)
from jobbridge.dashboard.views import export, formats, shell_commands
from jobbridge.store.access.links import LinkStore
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.counts.flow import FlowStore
from jobbridge.store.monitor.search import MonitorStore
from jobbridge.store.tenants.overview import TenantList

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

_HERE = Path(__file__).parent

RULES: Sequence[Rule] = (
    *overview.RULES, *jobs.RULES, *job.RULES, *schedules.RULES, *workers.RULES, *queue.RULES, *tenants.RULES,
    *health.RULES, *actions.RULES, *events.RULES, *whole.RULES, *bulk.RULES, *export.RULES, *sign_in.RULES,
    *probes.RULES, *metrics.RULES, *dead.RULES, *access.RULES, *clear_history.RULES, *public.RULES, *event_link.RULES,
    *routes.RULES, *stream.RULES, *rules.RULES,
)  # fmt: skip

#: The pages of the bar at the top: route, text, least role, of the whole installation.
NAVIGATION = (
    ("overview", "Overview", Role.VIEWER, False),
    ("jobs", "Jobs", Role.VIEWER, False),
    ("dead", "Dead letters", Role.VIEWER, False),
    ("schedules", "Schedules", Role.VIEWER, False),
    ("workers", "Workers and queues", Role.VIEWER, True),
    ("rules", "Rules", Role.VIEWER, True),
    ("tenants", "Tenants", Role.VIEWER, True),
    ("health", "Health", Role.OPERATOR, True),
    ("access", "Access", Role.ADMIN, True),
    ("audit", "Audit", Role.ADMIN, False),
)


class Dashboard:
    """What all requests share.

    Args:
        app: Whose jobs.
        authenticator: Who may come in; by tokens if None.
        app_name: How commands name the app.
    """

    def __init__(
        self, app: Celery, authenticator: Authenticator | None = None, *, app_name: str | None = None
    ) -> None:
        self.app = app
        self.access = AccessStore(app.database)
        self.authenticator = authenticator or Authenticator(self.access, keys_of(app.settings))
        self.counts = CountStore(app.database)
        self.folder = Folder(self.counts)
        self.flow = FlowStore(app.database)
        self.monitor = MonitorStore(app.database)
        self.check_up = CheckUp(app)
        self.links = LinkStore(app.database)
        self.attempts = AttemptLimit()
        #: From all addresses together: signing in asks the database.
        self.all_attempts = AttemptLimit(attempts=300)
        #: Of one person, to do what they may not; that is put on record.
        self.refusals = AttemptLimit(attempts=30)
        #: Of customers, by their links.
        self.looks = AttemptLimit(attempts=120)
        self.templates = _templates(app_name)
        #: The API's, once somebody asked for it.
        self.description: dict[str, Any] | None = None
        self.tenants = TenantList(app.database)
        self.tenant_ids = TenantIds(app.database)
        self.waiters = Waiters(app.jobs)
        self.readiness = probes.Readiness()
        self.live = Live(app.database)
        static = Mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
        self.router = Router([*(_route(self, rule) for rule in RULES), static])

    def page(self, context: RequestContext, template: str, *, status: int = 200, **values: Any) -> Response:
        """Give a page."""
        known = {
            "request_context": context, "path": context.path, "who": context.identity, "navigation": NAVIGATION,
            "now": datetime.now(UTC),
        }  # fmt: skip
        text = self.templates.get_template(template).render(known | values)
        return HTMLResponse(text, status_code=status)


def make_dashboard(
    app: Celery,
    *,
    authenticator: Authenticator | None = None,
    proxies: Sequence[str] = (),
    root_path: str = "",
    app_name: str | None = None,
) -> FastAPI:
    """Make the application; it can be mounted under any path.

    Args:
        app: Whose jobs.
        authenticator: Who may come in: by default whoever has a token of `jobbridge tokens create`.
        proxies: Addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
        root_path: The path under which a proxy serves it, as `/ops/jobs`; where it is mounted, that is known.
        app_name: How `celery -A` names the app, for the commands that pages show.
    """
    dashboard = Dashboard(app, authenticator, app_name=app_name)
    made = _Application(
        routes=dashboard.router.routes,
        exception_handlers=handlers(dashboard),
        openapi_url=None,  # a route of ours gives it, so that it has a rule
        redirect_slashes=False,  # it leads to the host that the request names, whatever that is
    )
    made.state.dashboard = dashboard
    made.state.proxies = tuple(proxies)
    made.state.root_path = root_path.rstrip("/")
    return made


class _Application(FastAPI):
    """FastAPI, with the headers also on what it answers when all else fails."""

    def build_middleware_stack(self) -> ASGIApp:
        inner: ASGIApp = SecurityHeaders(super().build_middleware_stack())
        if self.state.root_path:
            inner = UnderPath(inner, self.state.root_path)
        return BehindProxies(inner, self.state.proxies) if self.state.proxies else inner


def _route(dashboard: Dashboard, rule: Rule) -> Route:
    if isinstance(rule, ApiRule):
        return GuardedRoute(dashboard, rule)
    return Route(rule.path, guarded(dashboard, rule), methods=rule.methods, name=rule.name)


@functools.cache
def _templates(app_name: str | None) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(formats.FILTERS)
    environment.filters |= {
        "in_shell": partial(shell_commands.in_shell, app_name=app_name),
        "quoted": shlex.quote,
        "with_commands": partial(shell_commands.with_commands, app_name=app_name),
    }
    return environment

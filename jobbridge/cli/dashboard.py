"""`jobbridge dashboard`."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any

import click

from jobbridge.cli.common import app_option, load_app
from jobbridge.core.access import Role
from jobbridge.errors import ConfigurationError
from jobbridge.postgres.names import identify

if TYPE_CHECKING:
    from fastapi import FastAPI

    from jobbridge.app.application import Celery
    from jobbridge.dashboard.access.identity import Authenticator

#: What the extra `dashboard` brings.
PACKAGES = ("fastapi", "jinja2", "prometheus_client", "starlette", "uvicorn")

_ROOT_PATH = re.compile(r"(/[\w.~-]+)+")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@click.command("dashboard")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8484, show_default=True, help="0: any free one."
)
@click.option("--no-auth", is_flag=True, help="No tokens: whoever sits at this machine may do everything.")
@click.option(
    "--proxy", "proxies", multiple=True, metavar="ADDRESS",
    help="The address of a proxy whose X-Forwarded-For and X-Forwarded-Proto are believed.",
)  # fmt: skip
@click.option(
    "--proxy-user-header", metavar="HEADER", help="Where that proxy says who has signed in, as X-Remote-User."
)
@click.option(
    "--proxy-role-header", metavar="HEADER", help="Where it says the role: viewer, operator, admin."
)
@click.option("--proxy-tenant-header", metavar="HEADER", help="Where it says the one tenant, or * for all.")
@click.option(
    "--proxy-role", type=click.Choice([role.value for role in Role]), default=Role.VIEWER.value, show_default=True,
    help="Without --proxy-role-header.",
)  # fmt: skip
@click.option("--root-path", default="", metavar="PATH", help="Under which a proxy serves it: /ops/jobs.")
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="A line per request.")
@app_option
def command(
    host: str,
    port: int,
    no_auth: bool,
    proxies: tuple[str, ...],
    proxy_user_header: str | None,
    proxy_role_header: str | None,
    proxy_tenant_header: str | None,
    proxy_role: str,
    root_path: str,
    access_log: bool,
    app_name: str | None,
) -> int:
    """Serve the dashboard and its API, until stopped.

    Who wants in needs a token of `jobbridge tokens create`. Behind a proxy, which should speak HTTPS, name its address
    with --proxy. If it signs people in, it can say who it is in a header, which is believed from that address alone;
    what a client sends there itself, it must take away.
    """
    if no_auth and (host not in _LOOPBACK or proxies):
        raise ConfigurationError(
            f"--no-auth serves this machine only, and not {', '.join(proxies) or host}.",
            hint="Leave out --host and --proxy; or --no-auth, and make tokens: `jobbridge tokens create NAME`.",
        )
    if proxy_user_header is None and (proxy_role_header or proxy_tenant_header):
        raise ConfigurationError(
            f"{proxy_role_header or proxy_tenant_header} is of no use without a header that says who it is.",
            hint="Name it with --proxy-user-header.",
        )
    root_path = root_path.rstrip("/")
    if root_path and not _ROOT_PATH.fullmatch(root_path):
        raise ConfigurationError(
            f"{root_path!r} is no path under which the dashboard could be served.",
            hint="Begin it with a slash, and leave out host, query and encoded characters: --root-path /ops/jobs",
        )
    if missing := missing_packages():
        raise ConfigurationError(
            f"The dashboard needs the package {missing[0]}, which is not installed.",
            hint="Install it with `pip install 'jobbridge[dashboard]'`.",
        )
    from jobbridge.dashboard.application import make_dashboard

    identify("dashboard")
    app = load_app(app_name)
    app.loader.import_default_modules()  # to run a job again, its task must be known
    with app.database.connection():
        pass  # that checks the tables' revision
    authenticator = _local(app) if no_auth else None
    if proxy_user_header is not None:
        headers = (proxy_user_header, proxy_role_header, proxy_tenant_header)
        authenticator = _by_proxy(app, proxies, headers, Role(proxy_role))
    dashboard = make_dashboard(
        app, authenticator=authenticator, proxies=proxies, root_path=root_path, app_name=_named(app_name)
    )
    _serve(app, dashboard, host, port, access_log=access_log)
    return 0


def _named(app_name: str | None) -> str | None:
    return None if app_name == "jobbridge" else app_name  # it is what commands take by default


def missing_packages() -> list[str]:
    """Name what the dashboard needs and is not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def _local(app: Celery) -> Authenticator:
    from jobbridge.dashboard.access.identity import LocalAuthenticator
    from jobbridge.store.access.tokens import AccessStore

    click.echo("There is no sign-in: this machine only, and whoever sits at it may do everything.")
    return LocalAuthenticator(AccessStore(app.database))


def _by_proxy(
    app: Celery, proxies: tuple[str, ...], headers: tuple[str, str | None, str | None], role: Role
) -> Authenticator:
    from jobbridge.dashboard.access.proxies import ProxyAuthenticator, ProxyHeaders
    from jobbridge.dashboard.access.signing import keys_of
    from jobbridge.store.access.tokens import AccessStore

    user, of_role, of_tenant = headers
    named = ProxyHeaders(user=user, role=of_role, tenant=of_tenant, default_role=role)
    keys = keys_of(app.settings)
    return ProxyAuthenticator(AccessStore(app.database), proxies=proxies, headers=named, keys=keys)


def _serve(app: Celery, dashboard: FastAPI, host: str, port: int, *, access_log: bool) -> None:
    from jobbridge.dashboard.server import serve

    serve(
        dashboard,
        host=host,
        port=port,
        proxy_headers=False,  # the application reads them itself: see jobbridge.dashboard.access.proxies
        server_header=False,
        access_log=access_log,
        **_logging(app),
    )


def _logging(app: Celery) -> dict[str, Any]:
    if app.settings.log_format == "text":
        return {"log_level": "info"}  # as uvicorn writes it
    from jobbridge.observability.logs import configure

    configure(app.settings.log_format)
    return {"log_level": "info", "log_config": None}

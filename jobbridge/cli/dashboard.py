"""`jobbridge dashboard`."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import click

from jobbridge.cli.common import app_option, load_app
from jobbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: What the extra `dashboard` brings.
PACKAGES = ("fastapi", "jinja2", "prometheus_client", "starlette", "uvicorn")

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
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="A line per request.")
@app_option
def command(
    host: str, port: int, no_auth: bool, proxies: tuple[str, ...], access_log: bool, app_name: str | None
) -> int:
    """Serve the dashboard and its API, until stopped.

    Who wants in needs a token of `jobbridge tokens create`. Behind a proxy, which should speak HTTPS, name its address
    with --proxy.
    """
    if no_auth and (host not in _LOOPBACK or proxies):
        raise ConfigurationError(
            f"--no-auth serves this machine only, and not {', '.join(proxies) or host}.",
            hint="Leave out --host and --proxy; or --no-auth, and make tokens: `jobbridge tokens create NAME`.",
        )
    if missing := missing_packages():
        raise ConfigurationError(
            f"The dashboard needs the package {missing[0]}, which is not installed.",
            hint="Install it with `pip install 'jobbridge[dashboard]'`.",
        )
    app = load_app(app_name)
    app.loader.import_default_modules()  # to run a job again, its task must be known
    with app.database.connection():
        pass  # that checks the tables' revision
    _serve(app, host, port, proxies, no_auth=no_auth, access_log=access_log)
    return 0


def missing_packages() -> list[str]:
    """Name what the dashboard needs and is not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def _serve(
    app: Celery, host: str, port: int, proxies: tuple[str, ...], *, no_auth: bool, access_log: bool
) -> None:
    from jobbridge.dashboard.application import make_dashboard
    from jobbridge.dashboard.identity import LocalAuthenticator
    from jobbridge.dashboard.serving import serve
    from jobbridge.store.access import AccessStore

    authenticator = LocalAuthenticator(AccessStore(app.database)) if no_auth else None
    if no_auth:
        click.echo("There is no sign-in: this machine only, and whoever sits at it may do everything.")
    serve(
        make_dashboard(app, authenticator=authenticator),
        host=host,
        port=port,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        server_header=False,
        access_log=access_log,
        log_level="info",
    )

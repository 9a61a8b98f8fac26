"""`jobbridge codec-server`."""

from __future__ import annotations

import importlib.util

import click

from jobbridge.cli.common import app_option, load_app
from jobbridge.errors import ConfigurationError
from jobbridge.postgres.names import identify

_PACKAGES = {"starlette": "dashboard", "uvicorn": "dashboard", "temporalio": "temporal"}
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@click.command("codec-server")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8485, show_default=True, help="0: any free one."
)
@click.option(
    "--origin", "origins", multiple=True, metavar="URL",
    help="Of Temporal's web UI, whose pages may ask; by default that of TEMPORAL_UI_URL.",
)  # fmt: skip
@click.option("--no-auth", is_flag=True, help="No tokens: whoever sits at this machine may read everything.")
@app_option
def command(host: str, port: int, origins: tuple[str, ...], no_auth: bool, app_name: str | None) -> int:
    """Decrypt payloads for Temporal's web UI and command line, until stopped.

    Who asks needs a token of `jobbridge tokens create NAME --role operator`.
    """
    if no_auth and host not in _LOOPBACK:
        raise ConfigurationError(
            f"--no-auth serves this machine only, and not {host}.", hint="Leave out --host, or --no-auth."
        )
    for package, extra in _PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise ConfigurationError(
                f"The codec server needs the package {package}, which is not installed.",
                hint=f"Install it with `pip install 'jobbridge[{extra}]'`.",
            )
    import uvicorn

    from jobbridge.dashboard.access.identity import Authenticator, LocalAuthenticator
    from jobbridge.dashboard.codec_server import make_codec_server
    from jobbridge.store.access.tokens import AccessStore

    identify("codec-server")
    app = load_app(app_name)
    if not app.database.codec:
        raise ConfigurationError(
            "There are no keys to decrypt with.", hint="Set JOBBRIDGE_ENCRYPTION_KEYS as the workers have it."
        )
    access = AccessStore(app.database)
    authenticator = LocalAuthenticator(access) if no_auth else Authenticator(access)
    ui_url = (app.settings.temporal_ui_url or "").rstrip("/")
    allowed = [each.rstrip("/") for each in origins] or ["/".join(ui_url.split("/")[:3])] * bool(ui_url)
    server = make_codec_server(app.database.codec, authenticator, origins=allowed)
    uvicorn.run(server, host=host, port=port, server_header=False, log_level="info")
    return 0

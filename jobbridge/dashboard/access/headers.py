"""The headers of every answer: what a browser may do with it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Everything is from here, nothing is inline, and nobody frames it.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityHeaders:
    """Adds them where an answer has none of its own; what shows jobs is kept by nobody's cache, style sheets are.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        within = _path_within(scope)  # now: who answers changes the scope

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                is_asset = within.startswith("/static/") and message["status"] < 400
                headers.setdefault("Cache-Control", "public, max-age=3600" if is_asset else "no-store")
            await send(message)

        await self._app(scope, receive, send_with if scope["type"] == "http" else send)


def _path_within(scope: Scope) -> str:
    """Give the path without the one that the application is mounted under, which may be any."""
    path = str(scope.get("path", ""))
    return path.removeprefix(str(scope.get("root_path", "")).rstrip("/"))

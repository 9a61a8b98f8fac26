"""Behind a proxy: whom it forwards for, and whom it says to have signed in.

A header says nothing by itself: anybody can send one. So it is believed only if the connection comes from the proxy's
address. That address is noted before `X-Forwarded-For` is read, which puts the client's in its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from jobbridge.core.access import Principal, Role
from jobbridge.core.keys import TenantId
from jobbridge.core.signed.signing_keys import SigningKeys
from jobbridge.dashboard.access import sessions
from jobbridge.dashboard.access.identity import Authenticator, Identity
from jobbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.requests import Request

    from jobbridge.store.access.tokens import AccessStore

Network: TypeAlias = IPv4Network | IPv6Network

#: In the scope of a request: whom the connection is with, before any header was read.
PEER = "jobbridge.peer"
#: In the header of the tenant: no one tenant, but all.
ALL_TENANTS = "*"
_NAME_LIMIT = 255
_PATH = re.compile(r"(?:/[\w.~-]+)+", re.ASCII)


def networks(addresses: Sequence[str]) -> tuple[Network, ...]:
    """Read addresses of proxies.

    Raises:
        ConfigurationError: One is no address.
    """
    try:
        return tuple(ip_network(address) for address in addresses)
    except ValueError as error:
        raise ConfigurationError(
            f"A proxy's address cannot be read: {error}.", hint="Write it as 10.0.0.7 or 10.0.0.0/24."
        ) from None


class BehindProxies:
    """Notes whom a connection is with, then believes what a proxy says of its client.

    Args:
        app: The application.
        proxies: Addresses; of nobody else is a header believed.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[str]) -> None:
        networks(proxies)
        self._app = ProxyHeadersMiddleware(app, trusted_hosts=list(proxies))  # type: ignore[arg-type]  # the same

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        noted = {**scope, PEER: client[0] if client else None}
        await self._app(noted, receive, send)  # type: ignore[arg-type]


class UnderPath:
    """Serves the application under a path, whether the proxy takes that away or passes it on.

    Args:
        app: The application.
        path: As `/ops/jobs`.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        if not _PATH.fullmatch(path):
            raise ConfigurationError(
                f"{path!r} is no path to serve the dashboard under.", hint="Write it as /ops/jobs."
            )
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("root_path"):
            asked = scope["path"]
            is_passed_on = asked == self._path or asked.startswith(f"{self._path}/")
            path = asked if is_passed_on else self._path + asked
            scope = {**scope, "root_path": self._path, "path": path}
        await self._app(scope, receive, send)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyHeaders:
    """In which headers a proxy says who it is.

    Attributes:
        user: The name.
        role: The role, as `viewer`, `operator` or `admin`; None: all have the same.
        tenant: The one tenant that they may see, or `*`; None: all see all.
        default_role: Where no header says it.
    """

    user: str
    role: str | None = None
    tenant: str | None = None
    default_role: Role = Role.VIEWER


class ProxyAuthenticator(Authenticator):
    """Believes a proxy who it is; tokens are good as well.

    Args:
        access: Where tokens are.
        proxies: Addresses of the proxies.
        headers: Where they say so. What a client sends there itself, the proxy must take away.
        keys: What sessions and forms are signed with; None: keys of this process alone.
    """

    def __init__(
        self,
        access: AccessStore,
        *,
        proxies: Sequence[str],
        headers: ProxyHeaders,
        keys: SigningKeys | None = None,
    ) -> None:
        super().__init__(access, keys)
        if not proxies:
            raise ConfigurationError(
                f"The header {headers.user} would be believed whoever sends it.",
                hint="Name the address of the proxy with --proxy.",
            )
        self._networks = networks(proxies)
        self._headers = headers

    def identify(self, request: Request) -> Identity | None:
        """Give who it is; None: nobody that we know."""
        if "authorization" in request.headers or not self._is_proxy(request):
            return super().identify(request)
        principal = self._principal(request)
        if principal is None:
            return super().identify(request)
        whose = f"{principal.name}\n{principal.role}\n{principal.tenant}".encode()
        newest, *older = sessions.form_tokens(self.keys, whose)
        return Identity(principal=principal, form_token=newest, older_form_tokens=tuple(older))

    def _is_proxy(self, request: Request) -> bool:
        client = request.client.host if request.client is not None else None
        peer = request.scope.get(PEER, client)
        try:
            address = ip_address(peer or "")
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def _principal(self, request: Request) -> Principal | None:
        """Read who it is. What is missing, there twice or unknown is nobody."""
        name = _only(request, self._headers.user)
        role = self._role(request)
        if not name or len(name) > _NAME_LIMIT or role is None:
            return None
        if self._headers.tenant is None:
            return Principal(name=name, role=role)
        tenant = _only(request, self._headers.tenant)
        if not tenant:
            return None
        return Principal(name=name, role=role, tenant=None if tenant == ALL_TENANTS else TenantId(tenant))

    def _role(self, request: Request) -> Role | None:
        if self._headers.role is None:
            return self._headers.default_role
        told = _only(request, self._headers.role)
        try:
            return Role((told or "").lower())
        except ValueError:
            return None


def _only(request: Request, name: str) -> str | None:
    values = request.headers.getlist(name)
    value = _read(values[0]) if len(values) == 1 else ""
    return value.strip() if value.isprintable() else None


def _read(value: str) -> str:
    """Read a header's bytes, which servers take for Latin-1, as what proxies write: UTF-8; else Latin-1 after all."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value

"""Whom a request comes from: a token in the header, a session in the cookie, or the machine itself."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobbridge.core.access import Principal, Role
from jobbridge.core.signed.signing_keys import SigningKeys
from jobbridge.dashboard.access import sessions
from jobbridge.dashboard.access.signing import of_this_process
from jobbridge.store.access.tokens import AccessStore

if TYPE_CHECKING:
    from starlette.requests import Request

COOKIE = "jobbridge_session"

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
#: Read here: Starlette puts the server's own address, which is local, in the place of a name that it cannot read.
_LOCAL_HOST = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
#: A proxy on this machine connects from the loopback interface too; these tell that there is one.
_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who it is.

    Attributes:
        form_token: What a form must carry; None: the request says itself who it is (a token in a header), and no page
            of another site can make a browser send that.
        older_form_tokens: What a form may carry as well that was made before the key was changed.
        session: Names the session that there is a cookie of, to sign out of.
        is_local: Whoever sits at this machine, without a token.
    """

    principal: Principal
    form_token: str | None = None
    older_form_tokens: tuple[str, ...] = ()
    session: bytes | None = None
    is_local: bool = False

    def is_form_token(self, sent: str) -> bool:
        """Tell whether what a form carried is one of theirs."""
        good = (self.form_token or "", *self.older_form_tokens)
        return any(hmac.compare_digest(sent.encode(), each.encode()) for each in good if each)

    @property
    def is_session(self) -> bool:
        return self.session is not None


class Authenticator:
    """Finds out who it is by tokens.

    Args:
        access: Where they are.
        keys: What sessions and forms are signed with; None: keys of this process alone.
    """

    needs_sign_in = True
    #: What somebody is told whom it does not let in, where nobody can sign in.
    refusal = ""

    def __init__(self, access: AccessStore, keys: SigningKeys | None = None) -> None:
        self.access = access
        self._keys_given = keys

    @property
    def keys(self) -> SigningKeys:
        """What sessions and forms are signed with."""
        return self._keys_given or of_this_process()

    def identify(self, request: Request) -> Identity | None:
        """Give who it is; None: nobody that we know."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            row = self.access.find(token.strip())
            return None if row is None else Identity(principal=row.principal)
        session = sessions.read_cookie(request.cookies.get(COOKIE, ""))
        row = None if session is None else self.access.get(session.token_id, session=session.nonce)
        if session is None or row is None or not self._is_good(session, row.hash):
            return None
        newest, *older = sessions.form_tokens(self.keys, session.nonce)
        return Identity(
            principal=row.principal,
            form_token=newest,
            older_form_tokens=tuple(older),
            session=session.nonce,
        )

    def _is_good(self, session: sessions.Session, token_hash: bytes) -> bool:
        return sessions.verify(session, token_hash, self.keys, now=datetime.now(UTC))

    def sign_out(self, request: Request) -> None:
        """End the session that the request belongs to: its cookie is of no use from now on, wherever it is."""
        session = sessions.read_cookie(request.cookies.get(COOKIE, ""))
        if session is not None:
            self.access.sign_out(session.nonce, session.ends_at)

    def sign_in(self, token: str) -> str | None:
        """Give the cookie of a new session; None: the token is of no use."""
        row = self.access.find(token.strip())
        if row is None:
            return None
        return sessions.make_cookie(
            row.token_id, row.hash, self.keys, now=datetime.now(UTC), nonce=secrets.token_bytes(16)
        )


class LocalAuthenticator(Authenticator):
    """Lets everybody in who sits at this machine, and nobody else.

    The name in the address must be the machine's own, too: a page of another site, whose name was made to point here
    ("DNS rebinding"), would be let in otherwise.
    """

    needs_sign_in = False
    refusal = (
        "Without tokens this is served to this machine only, by the address http://localhost or 127.0.0.1."
    )

    def __init__(self, access: AccessStore) -> None:
        super().__init__(access, SigningKeys([secrets.token_bytes(32)]))
        self._nonce = secrets.token_bytes(16)

    def identify(self, request: Request) -> Identity | None:
        if not _is_local(request):
            return None
        return Identity(
            principal=Principal(name="local", role=Role.ADMIN),
            form_token=sessions.form_tokens(self.keys, self._nonce)[0],
            is_local=True,
        )


def _is_local(request: Request) -> bool:
    client = request.client.host if request.client is not None else None
    if client not in _LOOPBACK or any(name in request.headers for name in _OF_PROXIES):
        return False
    return _LOCAL_HOST.fullmatch(request.headers.get("host", "")) is not None

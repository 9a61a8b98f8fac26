"""Signing in and out."""

from __future__ import annotations

import logging
import time

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.dashboard.access import rate_limits, sessions
from jobbridge.dashboard.access.identity import COOKIE
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule

logger = logging.getLogger(__name__)


def show_sign_in(context: RequestContext) -> Response:
    """Show the form."""
    back = context.request.query_params.get("next", "")
    return context.dashboard.page(context, "sign_in.html", next=back, problem="")


def sign_in(context: RequestContext) -> Response:
    """Begin a session."""
    address = rate_limits.address_of(
        context.request.client.host if context.request.client is not None else ""
    )
    now = time.monotonic()
    if not (
        context.dashboard.attempts.allows(address, now=now)
        and context.dashboard.all_attempts.allows("", now=now)
    ):
        raise HTTPException(429, "Too many attempts. Wait a minute.", {"Retry-After": "60"})
    back = context.form.get("next", "")
    cookie = context.dashboard.authenticator.sign_in(context.form.get("token", ""))
    if cookie is None:
        logger.warning("dashboard.sign_in_refused", extra={"address": address})
        problem = "That token is of no use: it is mistyped, revoked or expired."
        return context.dashboard.page(context, "sign_in.html", status=401, next=back, problem=problem)
    _note_sign_in(context, cookie, address)
    response = RedirectResponse(back if is_ours(back) else context.path("overview"), status_code=303)
    context.set_cookie(response, COOKIE, cookie, seconds=int(sessions.LIFETIME.total_seconds()))
    return response


def _note_sign_in(context: RequestContext, cookie: str, address: str) -> None:
    session = sessions.read_cookie(cookie)
    row = None if session is None else context.dashboard.access.get(session.token_id)
    if row is not None:
        details = {"address": address}
        context.dashboard.access.note(row.principal, "sign in", tenant=row.tenant, details=details)


def sign_out(context: RequestContext) -> Response:
    """End the session, in this browser and wherever its cookie was copied to."""
    context.dashboard.authenticator.sign_out(context.request)
    context.note("sign out", tenant=context.principal.tenant)
    response = RedirectResponse(context.path("sign_in"), status_code=303)
    response.delete_cookie(COOKIE, path=context.path("overview"))
    return response


def is_ours(address: str) -> bool:
    r"""Tell whether an address leads to this site, as browsers read it: `//x`, `/\x` and `/<tab>/x` do not."""
    return address.startswith("/") and address[1:2] not in {"/", "\\"} and address.isprintable()


RULES = (
    Rule("/sign-in", "sign_in", show_sign_in, None),
    # A form of everybody's: there is no session yet that another site could use.
    Rule("/sign-in", "do_sign_in", sign_in, None, methods=POST),
    Rule("/sign-out", "sign_out", sign_out, Role.VIEWER, methods=POST),
)

"""What every request goes through, page or API: who is it, may they, and is it our own form."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from jobbridge.dashboard.access.identity import Identity
from jobbridge.dashboard.access.request_context import Form, RequestContext, Rule, storable

if TYPE_CHECKING:
    from jobbridge.dashboard.application import Dashboard

#: What a script of ours, or an API client with a cookie, sends the form's token in.
FORM_HEADER = "X-Form-Token"

#: Characters of what somebody wanted to act on, as it is put on record.
_SUBJECT_LIMIT = 200

#: How an API client is asked for a token.
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="jobbridge"'}


def guarded(dashboard: Dashboard, rule: Rule) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint of Starlette of a rule; a plain function runs on a thread, since the stores are synchronous."""

    async def endpoint(request: Request) -> Response:
        form = await _form_of(request, rule.form_limit) if rule.is_form else Form()
        context = await admit(dashboard, rule, request, form)
        if isinstance(context, Response):
            return context
        if inspect.iscoroutinefunction(rule.endpoint):
            answer: Response = await rule.endpoint(context)
            return answer
        return await run_in_threadpool(rule.endpoint, context)

    return endpoint


async def admit(dashboard: Dashboard, rule: Rule, request: Request, form: Form) -> RequestContext | Response:
    """Give the context of somebody who may make it, or where they can sign in.

    Raises:
        HTTPException: 401, 403 or, where they are not to know that there is something, 404.
    """
    identity = None
    if rule.needs is not None:
        identity = await run_in_threadpool(_identify, dashboard, request)
    context = RequestContext(dashboard=dashboard, request=request, identity=identity, form=form)
    if rule.changes and _is_of_another_site(request, rule):
        raise HTTPException(403, "This form is not one of this site.")
    if rule.needs is None:
        return context
    if identity is None:
        return _ask_to_sign_in(context, rule)
    try:
        _check(rule, identity, context)
    except HTTPException as refused:
        await run_in_threadpool(_note_refusal, rule, context, refused)
        raise
    if dashboard.folder.is_due:
        await run_in_threadpool(dashboard.folder.wake)
    return context


def _identify(dashboard: Dashboard, request: Request) -> Identity | None:
    identity = dashboard.authenticator.identify(request)
    if identity is None or identity.principal.tenant is None:
        return identity
    written = dashboard.tenant_ids.written(identity.principal.tenant)
    if written is None:
        return identity  # of a tenant that there cannot be: it sees nothing
    return replace(identity, principal=replace(identity.principal, tenant=written))


def _is_of_another_site(request: Request, rule: Rule) -> bool:
    """Tell whether a browser says that another site made it send this.

    All browsers do so over HTTPS and to this machine. Where they do not, the form's token stops what was forged; there
    is none yet for signing in, so that what they say then, the origin, must be the host that was asked.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None or rule.needs is not None or origin is None:
        return site not in {None, "same-origin", "none"}
    return origin.partition("://")[2].lower() != request.headers.get("host", "").lower()


def _note_refusal(rule: Rule, context: RequestContext, refused: HTTPException) -> None:
    """Put on record that somebody tried to do what they may not; not so often that it fills the disk."""
    who = context.principal
    if not rule.changes or not context.dashboard.refusals.allows(who.name, now=time.monotonic()):
        return
    named = [str(value)[:_SUBJECT_LIMIT] for value in context.request.path_params.values()]
    context.dashboard.access.note(
        who,
        rule.name.removeprefix("api_").replace("_", " "),
        outcome="refused",
        tenant=who.tenant,
        subject=" ".join(named) or None,
        reason=refused.detail,
    )


def _check(rule: Rule, identity: Identity, context: RequestContext) -> None:
    assert rule.needs is not None
    if rule.is_global and identity.principal.tenant is not None:
        raise HTTPException(404, "There is no such page.")
    if not identity.principal.may(rule.needs):
        raise HTTPException(403, f"That needs the role {rule.needs.value}.")
    if rule.changes and identity.form_token is not None and not _is_ours(rule, identity, context):
        raise HTTPException(403, "This form is too old, or not one of this site.")


def _is_ours(rule: Rule, identity: Identity, context: RequestContext) -> bool:
    """Tell whether a browser that is signed in was made to send this by a page of ours."""
    headers = context.request.headers
    if rule.is_api and headers.get("sec-fetch-site") == "same-origin":
        return True
    if rule.is_api and identity.is_local and not _SENT_BY_BROWSERS & set(headers):
        return True  # a command on this machine; what another site makes a browser send says where it is from
    sent = context.form.get("form_token") or headers.get(FORM_HEADER, "")
    return identity.is_form_token(sent)


_SENT_BY_BROWSERS = {"origin", "referer", "sec-fetch-site", "sec-fetch-mode"}


def _ask_to_sign_in(context: RequestContext, rule: Rule) -> Response:
    if not context.dashboard.authenticator.needs_sign_in:
        raise HTTPException(403, context.dashboard.authenticator.refusal)
    is_page = (
        not rule.is_api and not rule.changes and "text/html" in context.request.headers.get("accept", "")
    )
    if not is_page or "authorization" in context.request.headers:
        raise HTTPException(401, "Send a token: Authorization: Bearer …", CHALLENGE)
    back = context.request.url.path + (f"?{context.request.url.query}" if context.request.url.query else "")
    return RedirectResponse(context.path("sign_in", query={"next": back}), status_code=303)


async def body_of(request: Request, limit: int) -> bytes:
    """Read what was sent.

    Raises:
        HTTPException: 413, it is more than `limit` bytes.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, f"That is more than {limit:,} bytes.")
    return bytes(body)


async def _form_of(request: Request, limit: int) -> Form:
    body = await body_of(request, limit)
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise HTTPException(400, "That is no form.") from None
    return Form([(name, storable(value)) for name, value in fields])

"""The page of a link by which somebody without an account answers what a job waits for.

To look at it changes nothing: programs follow the links of mails. An answer is a form's, sent once; afterwards the page
says what was answered. Of the job it tells a title and the event's name, and nothing else. A link that is mistyped,
made up or expired, and one whose job is gone, are answered alike.
"""

from __future__ import annotations

import hmac
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.app.durable.links import PATH, keys_of_links
from jobbridge.app.durable.payloads import payload_of
from jobbridge.core.access import Principal, Role
from jobbridge.core.signed import event_links
from jobbridge.core.signed.event_links import EventLink
from jobbridge.dashboard.access.rate_limits import address_of
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule
from jobbridge.store.waits.queries import WaitQueries

if TYPE_CHECKING:
    from jobbridge.core.signed.signing_keys import SigningKeys
    from jobbridge.store.jobs.rows import JobRow
    from jobbridge.store.waits.queries import SentEvent

_LONGEST_COMMENT, _LONGEST_NAME, _LONGEST_TITLE = 2000, 200, 200


def show(context: RequestContext) -> Response:
    """Show what is asked, or what was answered."""
    link, keys, row = _link(context)
    return _page(context, link, keys, row)


def answer(context: RequestContext) -> Response:
    """Send the answer to the job, and show it; a second one changes nothing."""
    link, keys, row = _link(context)
    sent = context.form.get("form_token", "")
    if not any(hmac.compare_digest(sent.encode(), each.encode()) for each in _tokens(context, keys)):
        raise HTTPException(403, "This form is too old, or not one of this site.")
    choice = context.form.get("choice", "")
    if choice not in link.choices:
        raise HTTPException(422, "That is none of the answers.")
    here = RedirectResponse(context.path("event_link", event_link=_written(context)), status_code=303)
    if _answered(context, link) is not None or row.status.is_final:
        return here
    payload = {"choice": choice, "comment": _text(context, "comment", _LONGEST_COMMENT),
               "by": _text(context, "by", _LONGEST_NAME)}  # fmt: skip
    by = f"link: {payload['by']}" if payload["by"] else "link"
    outcome = context.app.send_event(
        link.name, payload, job_id=row.job_id, tenant=row.tenant, once=link.once, sent_by=by
    )
    context.dashboard.access.note(
        Principal(name=by, role=Role.VIEWER, tenant=row.tenant), "answer link", outcome=outcome, tenant=row.tenant,
        subject=str(row.job_id), details={"event": link.name, "choice": choice, "link": str(link.link_id)},
    )  # fmt: skip
    return here


def _link(context: RequestContext) -> tuple[EventLink, SigningKeys, JobRow]:
    address = address_of(context.request.client.host if context.request.client is not None else "")
    if not context.dashboard.looks.allows(address, now=time.monotonic()):
        raise HTTPException(429, "Too many requests. Wait a minute.", {"Retry-After": "60"})
    keys = keys_of_links(context.app.settings)
    link = None if keys is None else event_links.read(_written(context), keys, now=datetime.now(UTC))
    row = None if link is None else context.app.jobs.get(link.key)
    if keys is None or link is None or row is None:
        raise HTTPException(404, "This link is of no use: it is mistyped, or its time is over.")
    return link, keys, row


def _written(context: RequestContext) -> str:
    return str(context.request.path_params["event_link"])


def _tokens(context: RequestContext, keys: SigningKeys) -> list[str]:
    return list(event_links.form_tokens(_written(context), keys))


def _answered(context: RequestContext, link: EventLink) -> SentEvent | None:
    """Give what was answered by this link; None: nothing yet."""
    return WaitQueries(context.app.database).sent_once(link.key.tenant, link.name, link.once)


def _page(context: RequestContext, link: EventLink, keys: SigningKeys, row: JobRow) -> Response:
    event = _answered(context, link)
    payload = None if event is None else payload_of(context.app, event)
    choice = payload.get("choice") if isinstance(payload, dict) else None
    return context.dashboard.page(
        context,
        "event_link.html",
        link=link,
        title=_title(row),
        form_token=_tokens(context, keys)[0],
        here=context.path("event_link", event_link=_written(context)),
        answered=event,
        choice=choice,
        is_closed=row.status.is_final,
    )


def _title(row: JobRow) -> str:
    title = row.metadata.get("title")
    return title[:_LONGEST_TITLE] if isinstance(title, str) and title.strip() else row.type


def _text(context: RequestContext, name: str, longest: int) -> str | None:
    text = context.form.get(name, "").strip()
    if len(text) > longest:
        raise HTTPException(422, f"That is longer than {longest:,} characters.")
    return text or None


RULES = (
    Rule(f"{PATH}{{event_link}}", "event_link", show, None),
    Rule(f"{PATH}{{event_link}}", "answer_event_link", answer, None, methods=POST, form_limit=32 * 1024),
)

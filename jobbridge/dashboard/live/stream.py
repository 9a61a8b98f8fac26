"""`/events`: changes of jobs as Server-Sent Events. What they say is in docs/decisions/0011-live-events.md."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.dashboard.live import encode
from jobbridge.dashboard.live.broadcaster import Broadcaster, Live
from jobbridge.dashboard.live.subscriber import Interest, Subscriber
from jobbridge.dashboard.live.subscribers import TooManySubscribers
from jobbridge.dashboard.views import filters

#: Seconds without news after which a proxy is told that somebody is there.
KEEP_ALIVE = 15.0
#: Seconds that a client may need to take what was sent.
PATIENCE = 60.0
#: Seconds after which a stream ends, and its client comes back with the credentials that it has then.
LIFETIME = 1800

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect some kilobytes first
}


def event_stream(context: RequestContext) -> Response:
    """Give the changes of the jobs that the visitor may see, and asks for, as they happen."""
    seen = context.request.headers.get("last-event-id") or context.request.query_params.get("last_event_id")
    session = context.identity.session if context.identity is not None else None
    subscriber = Subscriber(interest_of(context), context.principal, seen=seen, session=session)
    return EventStream(context.dashboard.live, subscriber)


def interest_of(context: RequestContext) -> Interest:
    """Read what somebody wants to be told.

    Raises:
        HTTPException: 400, a value is not one of those there are; 404, there is no such job for them.
    """
    query = context.request.query_params
    search = filters.search_of(query, context.tenant)
    job_id = query.get("job_id")
    job, is_whole = context.find_job(job_id) if job_id else None, query.get("whole") == "yes"
    return Interest(
        tenant=search.tenant if job is None else job.tenant,
        shows_tenant=context.principal.tenant is None,
        job_id=None if job is None else job.job_id,
        root_id=(job.root_id or job.job_id) if is_whole and job is not None else None,
        group_id=job.group_id if is_whole and job is not None else None,
        statuses=None if search.statuses is None else frozenset(search.statuses),
        type=search.type,
        engine=search.engine,
        queue=search.queue,
    )


class EventStream(Response):
    """An answer that goes on until the client goes, is too slow to take anything, or the server stops.

    Args:
        live: Where changes come from.
        subscriber: Who watches what.
    """

    media_type = "text/event-stream"

    def __init__(self, live: Live, subscriber: Subscriber) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._live = live
        self._subscriber = subscriber

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        broadcaster = self._live.here()
        try:
            broadcaster.join(self._subscriber)
        except TooManySubscribers as refused:
            await _refusal(refused)(scope, receive, send)
            return
        gone = asyncio.ensure_future(self._close_when_gone(receive))
        try:
            with suppress(TimeoutError, OSError):  # OSError: servers say so when the client has gone
                await _send(send, start)
                await self._tell(broadcaster, send)
        finally:
            broadcaster.leave(self._subscriber)
            gone.cancel()

    async def _tell(self, broadcaster: Broadcaster, send: Send) -> None:
        ends_at = asyncio.get_running_loop().time() + LIFETIME + secrets.randbelow(300)  # not all at once
        await _send(send, _body(encode.RETRY))
        while not self._subscriber.is_closed and asyncio.get_running_loop().time() < ends_at:
            told = await self._subscriber.take(timeout=KEEP_ALIVE)
            if not self._subscriber.is_closed:
                cursor = broadcaster.cursor if self._subscriber.is_open else None
                await _send(send, _body(told or encode.keep_alive(cursor)))
        await _send(send, _body(b"", is_last=True))

    async def _close_when_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._subscriber.close()


async def _send(send: Send, message: Message) -> None:
    async with asyncio.timeout(PATIENCE):
        await send(message)


def _body(told: bytes, *, is_last: bool = False) -> Message:
    return {"type": "http.response.body", "body": told, "more_body": not is_last}


def _refusal(refused: TooManySubscribers) -> Response:
    status = 429 if refused.is_own_fault else 503
    return JSONResponse(
        {"error": "Too many streams are open.", "hint": "Close some, or come back in a minute."},
        status_code=status,
        headers={"Retry-After": "60"},
    )


RULES = (Rule("/events", "events", event_stream, Role.VIEWER, is_stream=True),)

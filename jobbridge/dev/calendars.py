"""Two calendar services on this machine that behave like Microsoft Graph and Google Calendar, for demo and tests.

Each gives access tokens, refuses old ones, keeps subscriptions or channels until they end, and can be told to be busy,
broken or slow.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, unquote

#: What both services know as the credentials of whoever asks.
CLIENT_SECRET = "demo-client-secret"  # noqa: S105  # these services guard nothing
REFRESH_TOKEN = "demo-refresh-token"  # noqa: S105


#: The one in the handlers' data set.
GOOGLE_CALENDAR = "dispatch@harbour-it.example"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was asked: the body is a JSON object, or a form."""

    method: str
    path: str
    body: dict[str, Any]
    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)


def busy(retry_after: str | None = "1") -> Answer:
    """429, as both services say it."""
    headers = {"Retry-After": retry_after} if retry_after is not None else {}
    return Answer(status=429, body=_error("TooManyRequests", "slow down"), headers=headers)


def broken(status: int = 503, message: str = "try later") -> Answer:
    return Answer(status=status, body=_error("ServiceUnavailable", message))


class CalendarService:
    """What the two have in common.

    Attributes:
        url: Its base.
        requests: All that it was asked, oldest first.
        before: Called first; its answer, if it gives one, is the answer.
        after: Called when the answer is known, and before it is sent.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.tokens: set[str] = set()
        self.before: Callable[[Request], Answer | None] = lambda request: None
        self.after: Callable[[Request, Answer], Answer] = lambda request, answer: answer
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        """Answer one request."""
        with self._lock:
            self.requests.append(request)
        early = self.before(request)
        if early is not None:
            return early
        with self._lock:
            return self.after(request, self._answer(request))

    def expire_tokens(self) -> None:
        """Accept no token that was given so far."""
        self.tokens.clear()

    def _answer(self, request: Request) -> Answer:
        if request.path.endswith("/token"):
            return self._token(request)
        if request.token not in self.tokens:
            return Answer(status=401, body=_error("InvalidAuthenticationToken", "the token has expired"))
        return self._serve(request)

    def _token(self, request: Request) -> Answer:
        fields = (request.body.get("client_secret"), request.body.get("refresh_token", REFRESH_TOKEN))
        if fields != (CLIENT_SECRET, REFRESH_TOKEN):
            return Answer(
                status=400, body={"error": "invalid_grant", "error_description": "no such credentials"}
            )
        token = f"token-{uuid.uuid4().hex}"
        self.tokens.add(token)
        return Answer(status=200, body={"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _serve(self, request: Request) -> Answer:
        raise NotImplementedError


class GraphService(CalendarService):
    """Microsoft Graph's subscriptions, two on each page of a list.

    Attributes:
        subscriptions: By id, as Graph shows them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions: dict[str, dict[str, Any]] = {}

    def living(self) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        return [
            one
            for one in self.subscriptions.values()
            if datetime.fromisoformat(one["expirationDateTime"]) > now
        ]

    def subscribe(self, notification_url: str, lifetime: timedelta, resource: str = "users/a/events") -> str:
        """Add a subscription as if it had been asked for; give its id."""
        return self._add(
            {
                "notificationUrl": notification_url,
                "resource": resource,
                "expirationDateTime": (datetime.now(UTC) + lifetime).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
        )

    def _add(self, body: dict[str, Any]) -> str:
        subscription_id = str(uuid.uuid4())
        self.subscriptions[subscription_id] = {"id": subscription_id, **body}
        return subscription_id

    def _serve(self, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        subscription_id = path.removeprefix("/subscriptions").lstrip("/")
        match request.method:
            case "GET":
                return self._page(int(query.removeprefix("$skiptoken=") or 0))
            case "POST":
                return Answer(status=201, body=self._shown(self._add(request.body)))
        if subscription_id not in {one["id"] for one in self.living()}:
            return Answer(status=404, body=_error("ResourceNotFound", "no such subscription"))
        if request.method == "DELETE":
            del self.subscriptions[subscription_id]
            return Answer(status=204)
        self.subscriptions[subscription_id] |= request.body
        return Answer(status=200, body=self._shown(subscription_id))

    def _page(self, start: int) -> Answer:
        living = self.living()
        page: dict[str, Any] = {"value": [self._shown(one["id"]) for one in living[start : start + 2]]}
        if len(living) > start + 2:
            page["@odata.nextLink"] = f"{self.url}/subscriptions?$skiptoken={start + 2}"
        return Answer(status=200, body=page)

    def _shown(self, subscription_id: str) -> dict[str, Any]:
        shown = dict(self.subscriptions[subscription_id])
        shown["clientState"] = None  # a secret, which Graph does not give back
        shown["expirationDateTime"] = shown["expirationDateTime"].replace("Z", "0Z")  # seven digits, as Graph
        return shown


class GoogleService(CalendarService):
    """Google Calendar's watch channels.

    Attributes:
        calendars: The ids of those that there are.
        channels: By id: calendar, resource, end, address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calendars: set[str] = set()
        self.channels: dict[str, dict[str, Any]] = {}

    def _serve(self, request: Request) -> Answer:
        if request.path == "/channels/stop":
            return self._stop(request.body)
        calendar, _, action = request.path.removeprefix("/calendars/").partition("/")
        if unquote(calendar) not in self.calendars:
            return Answer(status=404, body=_error("notFound", "Not Found"))
        if not action:
            return Answer(status=200, body={"kind": "calendar#calendar", "id": unquote(calendar)})
        return self._watch(unquote(calendar), request.body)

    def _watch(self, calendar: str, body: dict[str, Any]) -> Answer:
        if body["id"] in self.channels:
            return Answer(status=400, body=_error("channelIdNotUnique", "Channel id not unique"))
        resource_id = f"resource-of-{calendar}"
        self.channels[body["id"]] = {**body, "resourceId": resource_id, "calendar": calendar}
        shown = {"kind": "api#channel", "id": body["id"], "resourceId": resource_id}
        return Answer(status=200, body={**shown, "expiration": body["expiration"]})

    def _stop(self, body: dict[str, Any]) -> Answer:
        channel = self.channels.get(body["id"])
        if channel is None or channel["resourceId"] != body["resourceId"]:
            return Answer(status=404, body=_error("notFound", "Channel not found"))
        del self.channels[body["id"]]
        return Answer(status=204)


@contextmanager
def calendar_services() -> Iterator[dict[str, str]]:
    """Run both, with the calendar of the handlers' data set; give the settings by which the handlers find them."""
    graph, google = GraphService(), GoogleService()
    google.calendars.add(GOOGLE_CALENDAR)
    secret = {"client_id": "demo", "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}
    with (
        TemporaryDirectory(prefix="jobbridge-demo-secrets-") as folder,
        run_calendar_service(graph),
        run_calendar_service(google),
    ):
        for name in ("microsoft-graph", "google-calendar"):
            (Path(folder) / f"{name}.json").write_text(json.dumps(secret))
        yield {
            "CALENDAR_SECRETS_DIR": folder,
            "CALENDAR_WEBHOOK_URL": "https://hooks.demo.example/calendars",
            "MICROSOFT_GRAPH_URL": graph.url,
            "MICROSOFT_LOGIN_URL": graph.url,
            "GOOGLE_CALENDAR_URL": google.url,
            "GOOGLE_TOKEN_URL": f"{google.url}/token",
        }


@contextmanager
def run_calendar_service(service: CalendarService) -> Iterator[None]:
    """Serve on a free port until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(service))
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _handler_of(service: CalendarService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet: else the second waits for an acknowledgement

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            answer = service.answer(
                Request(
                    method=self.command,
                    path=self.path,
                    body=_read_body(self.rfile.read(length)),
                    token=(self.headers.get("Authorization") or "").removeprefix("Bearer "),
                )
            )
            content = b"" if answer.body is None else json.dumps(answer.body).encode()
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # whoever asked has gone
                self.close_connection = True

        do_GET = do_POST = do_PATCH = do_DELETE = _do  # noqa: N815  # names that http.server looks for

        def log_message(self, format: str, *arguments: Any) -> None:  # as http.server names it
            pass

    return Handler


def _read_body(content: bytes) -> dict[str, Any]:
    if not content:
        return {}
    try:
        found = json.loads(content)
    except ValueError:
        return {name: values[0] for name, values in parse_qs(content.decode()).items()}
    return found if isinstance(found, dict) else {}

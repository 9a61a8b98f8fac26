"""A client of an endless answer, in the event loop of the application: no server, no socket, no thread of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message

#: Seconds for what must happen.
PATIENCE = 15.0


@dataclass
class StreamEvent:
    name: str
    data: Any
    id: str | None


@dataclass
class Stream:
    """What was received so far."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    has_ended: bool = False
    is_stuck: bool = False
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def events(self) -> list[StreamEvent]:
        return [event for event in map(_event, self.text.split("\n\n")[:-1]) if event is not None]

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """The last that was told of each job."""
        return {job["job_id"]: job for event in self.events if event.name == "jobs" for job in event.data}

    @property
    def statuses(self) -> dict[str, str]:
        return {job_id: job["status"] for job_id, job in self.jobs.items()}

    @property
    def last_id(self) -> str:
        return [event.id for event in self.events if event.id is not None][-1]

    def all_of(self, name: str) -> list[Any]:
        return [event.data for event in self.events if event.name == name]

    async def until(self, condition: Callable[[], Any], *, within: float = PATIENCE) -> None:
        """Wait until something is true of what was received."""
        try:
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"not within {within:g} s; received {self.text[-3000:]!r}") from None

    async def until_event(self, name: str) -> None:
        await self.until(lambda: name in self.names)

    async def take(self, message: Message) -> None:
        while self.is_stuck:  # as a server that waits for a client to take what it was sent
            await asyncio.sleep(0.01)
        async with self._news:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.text += message["body"].decode()
                self.has_ended = not message.get("more_body", False)
            self._news.notify_all()


@asynccontextmanager
async def streaming(
    app: ASGIApp, path: str, *, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> AsyncIterator[Stream]:
    """Ask for a stream, and go away at the end of the block."""
    stream, gone, asked = Stream(), asyncio.Event(), urlsplit(path)

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method,
        "scheme": "https", "path": asked.path, "raw_path": asked.path.encode(), "root_path": "",
        "query_string": asked.query.encode(), "client": ("127.0.0.1", 1), "server": ("jobs.example", 443),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }  # fmt: skip
    answering = asyncio.ensure_future(app(scope, receive, stream.take))
    try:
        started = asyncio.ensure_future(stream.until(lambda: stream.status))
        await asyncio.wait({answering, started}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await answering
        await started
        yield stream
    finally:
        gone.set()
        stream.is_stuck = False
        async with asyncio.timeout(PATIENCE):
            await answering


def _event(text: str) -> StreamEvent | None:
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
    if "event" not in fields:
        return None
    return StreamEvent(name=fields["event"], data=json.loads(fields["data"]), id=fields.get("id"))

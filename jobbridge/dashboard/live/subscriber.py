"""Those who watch: what each wants to know, and what it was not sent yet."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from jobbridge.core.access import Principal
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.live import encode
from jobbridge.store.monitor.change_log import LiveRow

#: What waits for one subscriber, at most. The bytes are shared by all who have the same interest.
MOST_BYTES = 8 * 1024 * 1024
MOST_EVENTS = 1_000
#: Bytes that are sent at once, and are this subscriber's own then.
_AT_ONCE = 256 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Interest:
    """Which changes somebody is told of; what is None does not matter. Subscribers of one interest share their events.

    Attributes:
        job_id: This job; and with it, if they are named, those of the same root, or of the same group.
        shows_tenant: Whether an event names the tenant: not for those who have only one.
    """

    tenant: TenantId | None = None
    shows_tenant: bool = False
    job_id: UUID | None = None
    root_id: UUID | None = None
    group_id: str | None = None
    statuses: frozenset[JobStatus] | None = None
    type: str | None = None
    engine: Engine | None = None
    queue: str | None = None

    def takes(self, row: LiveRow) -> bool:
        """Tell whether a job is of interest as it is now."""
        return (
            self.tenant in (None, row.tenant)
            and (self.job_id in (None, row.job_id) or self._takes_related(row))
            and (self.statuses is None or row.status in self.statuses)
            and self.type in (None, row.type)
            and self.engine in (None, row.engine)
            and self.queue in (None, row.queue)
        )

    def _takes_related(self, row: LiveRow) -> bool:
        return (self.root_id is not None and self.root_id in (row.root_id, row.job_id)) or (
            self.group_id is not None and self.group_id == row.group_id
        )


class Subscriber:
    """One stream.

    Args:
        interest: What it is told.
        principal: Who watches.
        seen: What it has seen before it lost a stream, in the words of that stream.
        session: The session that it belongs to, and ends with.

    Attributes:
        is_open: It is told of changes by now.
    """

    def __init__(
        self,
        interest: Interest,
        principal: Principal,
        *,
        seen: str | None = None,
        session: bytes | None = None,
    ) -> None:
        self.interest = interest
        self.principal = principal
        self.session = session
        self.seen = seen
        self.is_open = False
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._has_news = asyncio.Event()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def put(self, told: bytes, *, cursor: str) -> None:
        """Have it sent; if it does not keep up, it loses what waits, and is told so."""
        if len(self._waiting) >= MOST_EVENTS or self._bytes + len(told) > MOST_BYTES:
            self._waiting.clear()
            self._bytes = 0
            told = encode.event("reset", cursor=cursor)
        self._waiting.append(told)
        self._bytes += len(told)
        self._has_news.set()

    def close(self) -> None:
        """End the stream; what waits is not sent any more."""
        self._is_closed = True
        self._has_news.set()

    async def take(self, *, timeout: float) -> bytes:
        """Give what waits, as soon as there is something; nothing, if there was none for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._has_news.wait()
        told: list[bytes] = []
        while self._waiting and sum(map(len, told)) < _AT_ONCE:
            told.append(self._waiting.popleft())
        self._bytes -= sum(map(len, told))
        if not self._waiting and not self._is_closed:
            self._has_news.clear()
        return b"".join(told)

"""Delivers what was recorded but not handed over.

That is: jobs sent inside the caller's transaction or from a pool child, and jobs whose sender could not reach Temporal
or died.

It listens for the notification that comes with each such row, and sweeps every few seconds for what nobody told it of;
less often after a minute in which there was nothing. Several relays do not disturb each other: the store gives each row
to one of them for a while.

What if it dies between two steps? After taking the row: another one takes it half a minute later. After the
workflow was started: the row is delivered again, Temporal says that it runs, and the row is marked then.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, LiteralString

from jobbridge.codec.rows import open_delivery
from jobbridge.core.envelope import Envelope
from jobbridge.core.events import Accepted
from jobbridge.core.fanout import FAN_OUT_HEADER
from jobbridge.core.keys import JobKey
from jobbridge.core.light import activity_id_in
from jobbridge.core.status import JobStatus
from jobbridge.errors import EncryptionError, EngineUnavailable
from jobbridge.postgres.connect import AsyncConnection
from jobbridge.postgres.listen import heard, listening
from jobbridge.store.jobs.queries import StoredDelivery
from jobbridge.store.rules.holds import come_due

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.temporal.deliver.delivery import TemporalDelivery

logger = logging.getLogger(__name__)

CHANNEL = "jobbridge_relay"
SWEEP_INTERVAL = timedelta(seconds=3)
#: When there was nothing to deliver for so long that what was taken is not taken again: an idle worker asks less often.
IDLE_SWEEP_INTERVAL = timedelta(seconds=10)
IDLE_AFTER = timedelta(minutes=1)
#: Younger rows belong to the process that wrote them, which delivers them itself; unless it gave notice.
OWN_DELIVERY_TIME = timedelta(seconds=2)
BATCH = 100
#: What rules across the fleet tell (migration 0029): a job is let go; it is at that time, or is due then.
NOW = "now"
_INSTANT = re.compile(r"(at|due) (\d+(?:\.\d+)?)")
_NOW: LiteralString = "SELECT extract(epoch FROM clock_timestamp())::float"
#: Seconds that an instant may seem to have come before it has.
SLACK = 0.002
#: Instants that are kept in mind; what is due at others waits for a sweep.
MOST_INSTANTS = 100_000


class Relay:
    """Takes undelivered jobs from the tables and delivers them.

    Args:
        app: Whose jobs.
        delivery: The way to Temporal.
        is_held: Whether a task runs in this very process: then its next message is no business of the relay's.
        executor: For what blocks; only `run` needs it.
    """

    def __init__(
        self,
        app: Celery,
        delivery: TemporalDelivery,
        *,
        is_held: Callable[[str], bool],
        executor: Executor | None = None,
    ) -> None:
        self._app = app
        self._delivery = delivery
        self._is_held = is_held
        self._executor = executor
        self._found_at = time.monotonic()
        self._instants: list[tuple[float, str]] = []  # seconds since the epoch, as a heap
        self._ahead = 0.0  # seconds that the database's clock is ahead of ours

    async def run(self) -> None:
        """Listen and sweep until cancelled."""
        await listening(self._app.database.target, "relay", self._work, channel=CHANNEL)

    async def _work(self, connection: AsyncConnection) -> None:
        cursor = await connection.execute(_NOW)
        if (row := await cursor.fetchone()) is not None:
            self._ahead = float(row[0]) - time.time()
        while True:
            await self._sweep(OWN_DELIVERY_TIME)
            is_idle = time.monotonic() - self._found_at > IDLE_AFTER.total_seconds()
            interval = IDLE_SWEEP_INTERVAL if is_idle else SWEEP_INTERVAL
            if await self._is_due(connection, time.monotonic() + interval.total_seconds()):
                self._found_at = time.monotonic()
                await self._sweep(timedelta())

    async def _is_due(self, connection: AsyncConnection, until: float) -> bool:
        """Wait until there is something to deliver; false: until then nobody told of it.

        What a rule lets go at an instant, and what stands in line from an instant on, is told of before, so that nobody
        has to ask again and again.
        """
        while (left := until - time.monotonic()) > 0:
            due_in = self._instants[0][0] - self._now() if self._instants else left
            told = await heard(connection, max(0.0, min(left, due_in)))
            others = [each for each in told if not self._note_instant(each)]
            if others:
                if (
                    NOW not in others
                ):  # a caller that can reach Temporal delivers by itself, and is faster than this
                    await asyncio.sleep(0.05)
                return True
            if await self._has_come(self._now()):
                return True
        return False

    def _note_instant(self, told: str) -> bool:
        """Keep an instant in mind; false: that is none."""
        instant = _INSTANT.fullmatch(told)
        if instant is not None and len(self._instants) < MOST_INSTANTS:
            heapq.heappush(self._instants, (float(instant[2]), instant[1]))
        return instant is not None

    def _now(self) -> float:
        """Give the database's time, or a moment before."""
        return time.time() + self._ahead - SLACK

    async def _has_come(self, now: float) -> bool:
        """See to the instants that have come; whether there are jobs to deliver."""
        kinds = set()
        while self._instants and self._instants[0][0] <= now:
            kinds.add(heapq.heappop(self._instants)[1])
        if "due" in kinds:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._executor, come_due, self._app.database)
        return bool(kinds)

    async def _sweep(self, older_than: timedelta) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self.sweep, older_than)

    def sweep(self, older_than: timedelta = OWN_DELIVERY_TIME) -> int:
        """Deliver what waits; gives the number of jobs delivered."""
        delivered = 0
        waiting: list[JobKey] = []
        while taken := self._app.jobs.take_undelivered(limit=BATCH, older_than=older_than):
            self._found_at = time.monotonic()
            size = len(taken)
            taken = self._opened(taken)
            taken = self._not_delivered_together(taken)
            delivered += size - len(taken)
            for number, stored in enumerate(taken):
                if _is_resumption(stored) or not self._is_for_a_running_workflow(stored):
                    delivered += self._deliver(stored)
                else:
                    waiting.append(stored.key)
                if self._delivery.known_failure() is not None:
                    # One silence is enough: the rest would each wait as long for it. They go first when it is back.
                    self._app.jobs.give_back_undelivered([each.key for each in taken[number:]] + waiting)
                    return delivered
            if size < BATCH:
                break
        # The workflow may be about to close: it is looked at again with the next sweep, not in half a minute.
        if waiting:
            self._app.jobs.give_back_undelivered(waiting)
        return delivered

    def _opened(self, taken: Sequence[StoredDelivery]) -> Sequence[StoredDelivery]:
        """Open their messages; those whose key is not here stay pending, for a relay that has it."""
        opened = []
        for stored in taken:
            try:
                opened.append(open_delivery(self._app.database.codec, stored))
            except EncryptionError as error:
                logger.error("relay.message_encrypted: %s", error, extra={"job_id": stored.task_id})
        return opened

    def _not_delivered_together(self, taken: Sequence[StoredDelivery]) -> Sequence[StoredDelivery]:
        """Start those that were never started, many at a time; give the others."""
        envelopes: dict[JobKey, Envelope] = {}
        for stored in taken:
            if _is_new(stored) and not self._is_held(stored.task_id):
                with suppress(TypeError, ValueError, KeyError):  # named when it is looked at alone
                    envelopes[stored.key] = Envelope.from_json(stored.message)
        if len(envelopes) < 2:
            return taken
        accepted = self._delivery.deliver_many(list(envelopes.values()))
        self._app.recorder.accept_many(accepted)
        done = {each.key for each in accepted}
        return [stored for stored in taken if stored.key not in done]

    def _is_for_a_running_workflow(self, stored: StoredDelivery) -> bool:
        """A retry or a replacement goes on in the workflow that sent it, if that is still there."""
        if self._is_held(stored.task_id):
            return True
        if _is_new(stored):
            return False
        try:
            return self._delivery.is_running(self._workflow_id(stored))
        except EngineUnavailable:
            return True

    def _workflow_id(self, stored: StoredDelivery) -> str:
        row = self._app.jobs.get(stored.key)
        return row.external_id if row and row.external_id else stored.task_id

    def _deliver(self, stored: StoredDelivery) -> bool:
        try:
            envelope = Envelope.from_json(stored.message)
            if _is_resumption(stored):
                envelope = replace(envelope, eta=None, waits=None)
                known_as = self._workflow_id(stored)
                # One that went without a workflow has one since it waits.
                workflow_id = stored.task_id if activity_id_in(known_as) else known_as
                accepted = self._delivery.resume(envelope, workflow_id)
            else:
                accepted = self._delivery.deliver(envelope)
        except EngineUnavailable as error:
            logger.warning("relay.not_delivered", extra={"job_id": stored.task_id, "error": str(error)})
            return False
        except (TypeError, ValueError, KeyError):
            # One row that cannot be read must not hold up the others; it stays pending, and this names it.
            logger.exception("relay.message_unreadable", extra={"job_id": stored.task_id})
            return False
        self._record(stored, accepted)
        return True

    def _record(self, stored: StoredDelivery, accepted: Accepted) -> None:
        if stored.status is not JobStatus.WAITING:
            self._app.recorder.record(accepted)
            return
        # It was given to a workflow that waits. If what it waits for came meanwhile, the row is to be delivered again,
        # which must not be taken for done.
        with self._app.database.transaction() as connection:
            self._app.jobs.lock(stored.key, connection)
            row = self._app.jobs.get(stored.key, connection)
            if row is not None and row.status is JobStatus.WAITING:
                self._app.recorder.record(replace(accepted, is_alone=False), connection)


def _is_new(stored: StoredDelivery) -> bool:
    """Whether no workflow had it yet. One that was suspended in its first attempt had none before that, either."""
    return stored.attempt == 0 and stored.status is JobStatus.PENDING and not _is_resumption(stored)


def _is_resumption(stored: StoredDelivery) -> bool:
    """Whether it is for a job that waited: for its children, or for an event. Then its workflow runs, and waits too."""
    message = stored.message or {}
    if message.get("waits"):
        return stored.status is JobStatus.PENDING  # what it waited for has come
    headers = message.get("headers") or {}
    return stored.attempt > 0 and stored.status is JobStatus.PENDING and bool(headers.get(FAN_OUT_HEADER))

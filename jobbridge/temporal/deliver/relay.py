"""Delivers what was recorded but not handed over.

That is: jobs sent inside the caller's transaction or from a pool child, and jobs whose sender could not reach Temporal
or died.

It listens for the notification that comes with each such row, and sweeps every few seconds for what nobody told it
of. Several relays do not disturb each other: the store gives each row to one of them for a while.

What if it dies between two steps? After taking the row: another one takes it half a minute later. After the
workflow was started: the row is delivered again, Temporal says that it runs, and the row is marked then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from jobbridge.core.envelope import Envelope
from jobbridge.core.fanout import FAN_OUT_HEADER
from jobbridge.core.keys import JobKey
from jobbridge.core.status import JobStatus
from jobbridge.errors import EngineUnavailable
from jobbridge.postgres.connect import AsyncConnection
from jobbridge.postgres.listen import listening, wait
from jobbridge.store.jobs.queries import StoredDelivery

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.temporal.deliver.delivery import TemporalDelivery

logger = logging.getLogger(__name__)

CHANNEL = "jobbridge_relay"
SWEEP_INTERVAL = timedelta(seconds=3)
#: Younger rows belong to the process that wrote them, which delivers them itself; unless it gave notice.
OWN_DELIVERY_TIME = timedelta(seconds=2)
BATCH = 100


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

    async def run(self) -> None:
        """Listen and sweep until cancelled."""
        await listening(self._app.database.target, "relay", self._work, channel=CHANNEL)

    async def _work(self, connection: AsyncConnection) -> None:
        while True:
            await self._sweep(OWN_DELIVERY_TIME)
            if await wait(connection, SWEEP_INTERVAL.total_seconds()):
                # A caller that can reach Temporal delivers by itself, and is faster than this.
                await asyncio.sleep(0.05)
                await self._sweep(timedelta())

    async def _sweep(self, older_than: timedelta) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self.sweep, older_than)

    def sweep(self, older_than: timedelta = OWN_DELIVERY_TIME) -> int:
        """Deliver what waits; gives the number of jobs delivered."""
        delivered = 0
        waiting: list[JobKey] = []
        while taken := self._app.jobs.take_undelivered(limit=BATCH, older_than=older_than):
            size = len(taken)
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

    def _not_delivered_together(self, taken: Sequence[StoredDelivery]) -> Sequence[StoredDelivery]:
        """Start those that were never started, many at a time; give the others."""
        envelopes: dict[JobKey, Envelope] = {}
        for stored in taken:
            if stored.attempt == 0 and not _is_resumption(stored) and not self._is_held(stored.task_id):
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
        if stored.attempt == 0:
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
                accepted = self._delivery.resume(envelope, self._workflow_id(stored))
            else:
                accepted = self._delivery.deliver(envelope)
        except EngineUnavailable as error:
            logger.warning("relay.not_delivered", extra={"job_id": stored.task_id, "error": str(error)})
            return False
        except (TypeError, ValueError, KeyError):
            # One row that cannot be read must not hold up the others; it stays pending, and this names it.
            logger.exception("relay.message_unreadable", extra={"job_id": stored.task_id})
            return False
        self._app.recorder.record(accepted)
        return True


def _is_resumption(stored: StoredDelivery) -> bool:
    """Whether it is for a parent that waits for its children; then its workflow runs, and waits for it too."""
    headers = (stored.message or {}).get("headers") or {}
    return stored.attempt > 0 and stored.status is JobStatus.PENDING and bool(headers.get(FAN_OUT_HEADER))

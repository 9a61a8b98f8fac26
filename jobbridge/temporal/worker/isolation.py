"""Suspects run alone before they are condemned, as on CE (decision 0023).

An activity whose workers fell silent all but one time is a suspect: it waits until its worker has nothing else, and
what comes meanwhile waits for it. Who waits tells Temporal that it has not begun, so that a worker's end does not count
for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from temporalio import activity

from jobbridge.temporal.wire.contract import ACKNOWLEDGED, BEGUN

if TYPE_CHECKING:
    from jobbridge.temporal.worker.bridge import WorkerHost
    from jobbridge.temporal.worker.execution import Execution

#: Between two looks, and two words to Temporal, while something waits for its turn. Seconds.
LOOK: Final = 1.0
#: So long it takes until Temporal surely knows that it begins (`pollers.HEARTBEAT_THROTTLE`, and some). Seconds.
TOLD: Final = 1.5


class Isolation:
    """Whose turn it is in one worker. For the thread of Temporal's client.

    Args:
        host: What the worker has.
    """

    def __init__(self, host: WorkerHost) -> None:
        self._host = host
        self._suspects: list[Execution] = []

    async def turn(self, execution: Execution) -> None:
        """Return when it may begin. Again and again it tells Temporal that it lives, and has not begun."""
        if execution.is_suspect:
            self._suspects.append(execution)
        elif not self._is_held_up(execution):
            return
        try:
            while self._is_held_up(execution):
                activity.heartbeat(execution.told({ACKNOWLEDGED: False, BEGUN: False}))
                await asyncio.sleep(LOOK)
            activity.heartbeat(execution.told({ACKNOWLEDGED: False, BEGUN: True}))
            await asyncio.sleep(TOLD)
        except asyncio.CancelledError:
            self.leave(execution)
            raise

    def leave(self, execution: Execution) -> None:
        """It has ended, or will not begin here."""
        if execution in self._suspects:
            self._suspects.remove(execution)

    def _is_held_up(self, execution: Execution) -> bool:
        if not execution.is_suspect:
            return bool(self._suspects)
        others = [each for each in self._host.executions if each is not execution and not each.settled.done()]
        return bool(others) or self._suspects[0] is not execution

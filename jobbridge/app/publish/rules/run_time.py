"""What is set at run time, as a process that sends jobs knows it: read when it sends, at most every few seconds."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from jobbridge.core.rules.limits import FleetRule, Per, RuleKind
from jobbridge.errors import JobBridgeError
from jobbridge.store.rules.fleet import RuleStore

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: Seconds after which a process that sends looks again.
FRESH: Final = 5.0


class RunTimeRules:
    """Of one app.

    Args:
        app: Whose jobs.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._read_at = float("-inf")
        self._by_task: dict[str, list[FleetRule]] = {}
        self._by_queue: dict[str, list[FleetRule]] = {}

    def of(self, task: str, queue: str) -> list[FleetRule]:
        """Give what is set for jobs of that task in that queue."""
        self._look()
        return [*self._by_task.get(task, ()), *self._by_queue.get(queue, ())]

    def concern(self, task: str) -> bool:
        """Whether jobs of that task may come under any."""
        self._look()
        return bool(self._by_queue) or task in self._by_task

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._read_at < FRESH:
            return
        self._read_at = now
        try:
            found = RuleStore(self._app.database).all()
        except JobBridgeError as error:  # whoever sends will hear of it
            logger.debug("rules.not_read", extra={"error": str(error)})
            return
        self._by_task, self._by_queue = {}, {}
        for each in found:
            kept = self._by_queue if each.rule.per is Per.QUEUE else self._by_task
            kept.setdefault(each.target, []).append(each.rule)


def merged(declared: tuple[FleetRule, ...], set_now: list[FleetRule]) -> tuple[FleetRule, ...]:
    """Put what is set in the place of what is declared of the same kind for the same jobs."""
    told: dict[tuple[RuleKind, Per, object], FleetRule] = {
        (rule.kind, rule.per, rule.key): rule for rule in (*declared, *set_now)
    }
    return tuple(told.values())


_known: WeakKeyDictionary[Celery, RunTimeRules] = WeakKeyDictionary()


def run_time_rules(app: Celery) -> RunTimeRules:
    """Give those of the app."""
    if (known := _known.get(app)) is None:
        known = _known.setdefault(app, RunTimeRules(app))
    return known

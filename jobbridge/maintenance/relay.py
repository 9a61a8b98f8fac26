"""Delivers to Temporal what was recorded for it and not handed over, where no Temporal worker does.

Temporal workers have a relay of their own, which hears of each row at once (`temporal.deliver.relay`). This one
sweeps: for `jobbridge maintain`, and for celery workers of an installation whose Temporal workers are all away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from jobbridge.store.jobs.open_jobs import has_undelivered

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Younger ones are on their way, with whoever recorded them or with a Temporal worker's relay.
AGE = timedelta(seconds=5)


class Sweeper(Protocol):
    """Delivers what waits."""

    def sweep(self, older_than: timedelta) -> int:
        """Give how many were delivered."""
        ...


class RelayService:
    """Sweeps when there is something to deliver.

    Args:
        app: Whose jobs.
        make_sweeper: Called when the first such job is there, and not before: an installation without Temporal
            makes no client.
        age: Leave younger ones.
    """

    name = "relay"
    interval = timedelta(seconds=20)

    def __init__(
        self, app: Celery, make_sweeper: Callable[[Celery], Sweeper], *, age: timedelta = AGE
    ) -> None:
        self._app = app
        self._make_sweeper = make_sweeper
        self._age = age

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Deliver what has waited for long enough.

        Raises:
            EngineUnavailable: Jobs wait for Temporal, and it cannot be reached, or its extra is not installed.
        """
        if not has_undelivered(self._app.database, older_than=self._age):
            return {}
        return {"delivered": self._make_sweeper(self._app).sweep(self._age)}

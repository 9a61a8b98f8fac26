"""Sees to parents and children of which a process died at the wrong moment, and to called jobs whose caller has ended.

Whoever ends a child releases the next one, or sends the parent. What nobody did so is done here; what is between two
steps there is told in `jobbridge.store.fanout.parent`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Between two looks for what hardly ever happens, in seconds: an idle worker asks for little.
RARELY = 60.0


class FanOutService:
    """See the module.

    Args:
        app: Whose jobs.
    """

    name = "fan_outs"
    interval = timedelta(seconds=20)

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._rare_at = 0.0

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Look for fan-outs, and called jobs, of which something was left undone, and do it."""
        is_rare = time.monotonic() >= self._rare_at
        done = {"fan_outs": self._app.fan_outs.sweep(stopped, counts=is_rare)}
        if is_rare:
            self._rare_at = time.monotonic() + RARELY
            done["called"] = self._app.durable.sweep(stopped)
        return done

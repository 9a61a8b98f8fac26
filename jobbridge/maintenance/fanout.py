"""Sees to parents and children of which a process died at the wrong moment.

Whoever ends a child releases the next one, or sends the parent. What nobody did so is done here; what is between two
steps there is told in `jobbridge.store.fanout.parent`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


class FanOutService:
    """See the module.

    Args:
        app: Whose jobs.
    """

    name = "fan_outs"
    interval = timedelta(seconds=20)

    def __init__(self, app: Celery) -> None:
        self._app = app

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Look for fan-outs in which something was left undone, and do it."""
        return {"fan_outs": self._app.fan_outs.sweep(stopped)}

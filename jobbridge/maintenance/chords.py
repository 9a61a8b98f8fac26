"""Sees to chords of which a process died at the wrong moment.

Whoever ends the last part sends the body. What nobody did so is done here; what is between two steps there is told in
`jobbridge.app.execute.chords`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


class ChordService:
    """See the module.

    Args:
        app: Whose jobs.
    """

    name = "chords"
    interval = timedelta(seconds=30)  # a backstop: whoever ends the last part sends the body

    def __init__(self, app: Celery) -> None:
        self._app = app

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Look for chords in which something was left undone, and do it."""
        return {"chords": self._app.chords.sweep(stopped)}

"""Looks after rules across the fleet where no commit does; see `jobbridge.store.rules.upkeep`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from jobbridge.store.rules import upkeep

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


class RuleService:
    """See the module.

    Args:
        app: Whose jobs.
    """

    name = "rules"
    interval = timedelta(seconds=60)  # a backstop: whoever ends a job lets the next one begin

    def __init__(self, app: Celery) -> None:
        self._app = app

    def run(self, stopped: threading.Event) -> Mapping[str, int]:
        """Free places that nobody frees, and look at each rule at which jobs wait."""
        database = self._app.database
        return upkeep.look_after(database) if upkeep.has_rules(database) else {}

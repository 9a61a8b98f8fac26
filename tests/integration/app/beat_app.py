"""An app whose beat is started as a process: by Postgres's clock, or by one that a table holds (`VirtualBeat`)."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from jobbridge import Celery, JobContext, job
from jobbridge.app.schedules.beat import TableScheduler
from jobbridge.core.schedules.definition import Recurrence

app = Celery("beating")
app.conf.beat_schedule = {
    "every-second": {"task": "beat.tick", "schedule": 1.0, "args": ("static",)},
    **({"only-before": {"task": "beat.tick", "schedule": 3600}} if "BEAT_MORE" in os.environ else {}),
}


@app.task(name="beat.tick")
def tick(*args: Any) -> None:
    """Never run: no worker is started."""


@job("beat.nightly", schedule=Recurrence("0 3 * * *", zone="Europe/Berlin", jitter=timedelta(minutes=5)))
def nightly(ctx: JobContext, data: Any) -> None: ...


def _clock_of_table(connection: Any) -> datetime:
    now: datetime = connection.execute("SELECT now_at FROM virtual_clock").fetchone()[0]
    return now


class VirtualBeat(TableScheduler):
    clock = staticmethod(_clock_of_table)

    def setup_schedule(self) -> None:
        """Declare nothing: the test makes the schedules."""

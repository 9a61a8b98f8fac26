"""An app whose beat is started as a process: by Postgres's clock, or by one that a table holds (`VirtualBeat`)."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import BaseSchedule, schedule

from jobbridge import Celery, JobContext, job
from jobbridge.app.schedules.beat import TableScheduler
from jobbridge.core.schedules.definition import Recurrence


class Sunset(BaseSchedule):
    """As Celery's `solar`, which needs a library that is not installed here."""


class MySchedule(schedule):
    """Of somebody who overrides when it is due."""


#: What code declares and no engine can honour; and one entry whose arguments are dates.
ODD: dict[str, Any] = {
    "solar": {"task": "beat.tick", "schedule": Sunset()},
    "half": {"task": "beat.tick", "schedule": 0.5},
    "subclass": {"task": "beat.tick", "schedule": MySchedule(60)},
    "text": {"task": "beat.tick", "schedule": "every day"},
    "no mapping": 60,
    "no task": {"schedule": 60},
    "unsendable": {"task": "beat.tick", "schedule": 60, "args": (object(),)},
    "odd zone": {"task": "beat.tick", "schedule": 60, "options": {"tenant": "a\x00b"}},
    "dated": {"task": "beat.tick", "schedule": 1.0, "args": (datetime(2026, 6, 1, 12, tzinfo=UTC),)},
}

app = Celery("beating")
app.conf.beat_schedule = {
    **(ODD if "BEAT_ODD" in os.environ else {}),
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

"""Jobs of every kind, on both engines, before anybody looks: with names, errors and data that would be scripts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from jobbridge import event_link
from jobbridge.core.keys import Engine, JobKey
from jobbridge.store.access.links import LinkStore
from tests.browser.stage import ACME, GLOBEX, Stage

#: Texts that would open a dialog, which fails each test (see visitors.py), were they ever more than text.
EVIL = "<img src=x onerror=alert(1)>"
EVIL_ATTRIBUTE = '"><script>alert(2)</script><a href="javascript:alert(3)'
SECRET = "hunter2"
THEIRS = "note-of-globex"


@dataclass(frozen=True, kw_only=True)
class Books:
    """What there is: by engine, ids of jobs and names of schedules."""

    failed: dict[Engine, str]
    completed: dict[Engine, str]
    running: dict[Engine, str]
    schedules: dict[Engine, str]
    theirs: str
    link: str
    event_link: str

    def example(self, parameter: str) -> Any:
        """Give a value for a parameter of a route: who adds a route with another one adds it here."""
        return {
            "job_id": self.failed[Engine.CELERY],
            "schedule_id": self.schedules[Engine.CELERY],
            "schedule": self.schedules[Engine.CELERY],
            "queue": "celery",
            "link": self.link,
            "event_link": self.event_link,
        }[parameter]


def keep_books(stage: Stage) -> Books:
    """Send the jobs, make the schedules, and wait until those have ended that will."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    failed, completed, running, schedules = {}, {}, {}, {}
    for engine in Engine:
        failed[engine] = stage.send("bill", {"number": 17, "note": EVIL}, engine=engine)
        completed[engine] = stage.send("keep", {"password": SECRET, EVIL_ATTRIBUTE: EVIL}, engine=engine)
        running[engine] = stage.send("report", {}, engine=engine)
        stage.tell(running[engine], 40)
        stage.send("bill", {"number": 1}, engine=engine, run_at=tomorrow)
        stage.send("bill", {"number": 2}, engine=engine, queue="nobody-serves-this")
        schedules[engine] = _schedule(stage, engine)
    theirs = stage.send("keep", {"note": THEIRS}, engine=Engine.CELERY, tenant=GLOBEX)
    stage.app.send_task(EVIL, args=[EVIL], queue=EVIL_ATTRIBUTE[:40])
    for engine in Engine:
        stage.wait_for(failed[engine], "failed")
        stage.wait_for(completed[engine], "completed")
        stage.wait_for(running[engine], "processing")
    stage.wait_for(theirs, "completed")
    key = JobKey(tenant=ACME, job_id=UUID(completed[Engine.CELERY]))
    link, _ = LinkStore(stage.app.database).create(key, lasts=timedelta(hours=1), created_by="tests")
    asked = event_link(running[Engine.CELERY], EVIL, tenant=ACME, app=stage.app)
    return Books(
        failed=failed, completed=completed, running=running, schedules=schedules, theirs=theirs, link=link,
        event_link=asked.rpartition("/")[2],
    )  # fmt: skip


def _schedule(stage: Stage, engine: Engine) -> str:
    create = stage.app.schedules.create
    handle = create(
        "shop.bill", "0 3 * * *", {"number": 3}, name=f"monthly {engine} {EVIL}", tenant=ACME,
        zone="Europe/Dublin", engine=engine,
    )  # fmt: skip
    paused = create(
        "shop.bill", "0 4 * * *", {"number": 4}, name=f"paused {engine}", tenant=ACME, engine=engine
    )
    stage.app.schedules.pause(paused.schedule_id, ACME, note=EVIL_ATTRIBUTE)
    return str(handle.schedule_id)

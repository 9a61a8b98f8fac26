"""The books of fires that Temporal tells of: no Temporal is needed to keep them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jobbridge import Celery
from jobbridge.core.keys import Engine
from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.core.schedules.policies import FireOutcome
from jobbridge.core.schedules.specs import parse_spec
from jobbridge.settings import load_settings
from jobbridge.store.schedules.repository import ScheduleStore
from jobbridge.temporal.schedules.fires import begin_fire
from jobbridge.temporal.wire.fire import Fire

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = Celery("fired", settings=load_settings({"DATABASE_URL": database_url}))
    app.task(name="tick", shared=False)(_tick)
    app.finalize()
    app.schedules.store = ScheduleStore(app.database, clock=lambda _: NOON)
    yield app
    app.close()


def _tick() -> None:
    """Never run here: there is no worker."""


def _fire(app: Celery, seconds: int) -> None:
    row = app.schedules.find("tick")
    told = Fire(
        schedule_id=str(row.schedule_id),
        tenant_id=row.tenant,
        fire_at=(NOON + timedelta(seconds=seconds)).isoformat(),
        version=row.version,
        kind=row.kind.value,
        spec=row.spec,
        zone=row.zone,
    )
    begin_fire(app, told, workflow_id=f"fire-{seconds}", run_id="run")


def test_what_overlapped_before_a_pause_is_in_the_history(app: Celery) -> None:
    app.schedules.save(
        ScheduleDefinition(name="tick", task="tick", spec=parse_spec("2 seconds"), engine=Engine.TEMPORAL)
    )
    _fire(app, 2)  # its job runs on, so Temporal skips 4 and 6, and tells of neither

    app.schedules.pause("tick")
    _fire(app, 8)  # was under way when it was paused

    told = [(fire.fire_at, fire.outcome, fire.reason) for fire in reversed(app.schedules.history("tick"))]
    assert told == [
        (NOON + timedelta(seconds=2), FireOutcome.ENQUEUED, None),
        (NOON + timedelta(seconds=4), FireOutcome.SKIPPED, "an earlier job has not ended"),
        (NOON + timedelta(seconds=6), FireOutcome.SKIPPED, "an earlier job has not ended"),
        (NOON + timedelta(seconds=8), FireOutcome.SKIPPED, "the schedule is paused"),
    ]

"""The books of fires that Temporal tells of: no Temporal is needed to keep them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from jobbridge import Celery
from jobbridge.app.schedules.firing import ScheduleFirer
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.core.schedules.policies import FireOutcome, Overlap
from jobbridge.core.schedules.specs import parse_spec
from jobbridge.settings import load_settings
from jobbridge.store.jobs.rows import JobRow
from jobbridge.store.schedules.repository import ScheduleStore
from jobbridge.temporal.schedules.fires import Begun, begin_fire
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


def _told(app: Celery, seconds: int) -> Fire:
    row = app.schedules.find("tick")
    return Fire(
        schedule_id=str(row.schedule_id),
        tenant_id=row.tenant,
        fire_at=(NOON + timedelta(seconds=seconds)).isoformat(),
        version=row.version,
        kind=row.kind.value,
        spec=row.spec,
        zone=row.zone,
    )


def _fire(app: Celery, seconds: int, told: Fire | None = None) -> Begun:
    return begin_fire(app, told or _told(app, seconds), workflow_id=f"fire-{seconds}", run_id="run")


def _save(app: Celery, engine: Engine, overlap: Overlap = Overlap.SKIP) -> None:
    definition = ScheduleDefinition(
        name="tick", task="tick", spec=parse_spec("2 seconds"), engine=engine, overlap=overlap
    )
    app.schedules.save(definition)


def _outcomes(app: Celery) -> dict[int, FireOutcome]:
    return {
        int((fire.fire_at - NOON).total_seconds()): fire.outcome for fire in app.schedules.history("tick")
    }


def test_what_overlapped_before_a_pause_is_in_the_history(app: Celery) -> None:
    _save(app, Engine.TEMPORAL)
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


def _job_of(app: Celery, told: Fire) -> JobRow | None:
    return app.jobs.get(JobKey(tenant=TenantId(told.tenant_id), job_id=UUID(told.job_id)))


def test_a_fire_that_a_later_one_overtook_is_made_by_whoever_fires_now(app: Celery) -> None:
    """Of two that Temporal fired, the later one begins first; then the schedule goes to Celery."""
    _save(app, Engine.TEMPORAL, Overlap.ALLOW)
    first = _told(app, 2)
    assert _fire(app, 4).skipped is None
    app.schedules.store = ScheduleStore(app.database, clock=lambda _: NOON + timedelta(seconds=5))
    _save(app, Engine.CELERY, Overlap.ALLOW)

    begun = _fire(app, 2, first)

    assert begun.skipped == "the schedule is fired by celery now"
    job = _job_of(app, first)
    assert job is not None
    assert job.runner_type == "celery"
    assert _outcomes(app) == {4: FireOutcome.ENQUEUED, 2: FireOutcome.ENQUEUED}
    row = app.schedules.find("tick")
    assert row.last_fire_at == NOON + timedelta(seconds=4)
    assert row.due_at is not None
    assert _fire(app, 2, first).skipped == "another scheduler fired it"


def test_a_fire_that_was_told_while_its_schedule_went_to_celery_is_not_lost(app: Celery) -> None:
    """Celery fires from the next instant on, and this one is before it: nobody has noted it."""
    _save(app, Engine.TEMPORAL)
    first = _told(app, 2)
    app.schedules.store = ScheduleStore(app.database, clock=lambda _: NOON + timedelta(seconds=3))
    _save(app, Engine.CELERY)

    _fire(app, 2, first)

    assert _job_of(app, first) is not None
    assert app.schedules.find("tick").open_jobs == [UUID(first.job_id)]


def test_a_fire_that_celery_is_still_to_make_is_left_to_it(app: Celery) -> None:
    _save(app, Engine.TEMPORAL)
    first = _told(app, 2)
    _save(app, Engine.CELERY)

    _fire(app, 2, first)

    assert _job_of(app, first) is None
    assert app.schedules.find("tick").next_fire_at == NOON + timedelta(seconds=2)


def test_a_fire_that_celery_has_left_out_stays_left_out(app: Celery) -> None:
    _save(app, Engine.TEMPORAL)
    late = _told(app, 8)
    _save(app, Engine.CELERY)
    ScheduleFirer(app, clock=lambda _: NOON + timedelta(hours=3)).fire_due()

    _fire(app, 8, late)

    assert _job_of(app, late) is None

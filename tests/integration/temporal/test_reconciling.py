"""Rows whose workflow is over or gone are settled; rows of which nothing is known are left alone."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from jobbridge.bootstrap import make_maintainer
from jobbridge.core.events import Started
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, job_id_for
from jobbridge.errors import EngineUnavailable
from jobbridge.maintenance.relay import RelayService
from jobbridge.maintenance.sightings import Sightings
from jobbridge.maintenance.workflows import WorkflowService
from jobbridge.postgres.presence import draw_number
from jobbridge.store.workers.workers import WorkerStore
from jobbridge.temporal.deliver.relay import Relay
from jobbridge.temporal.reconcile.workflows import WorkflowReconciler
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.support import wait_until

AT_ONCE = timedelta()
NEVER_STOPPED = threading.Event()


def _service(app: Any) -> WorkflowService:
    app.workers = WorkerStore(app.database, grace=AT_ONCE)  # the test's Postgres has just begun
    return WorkflowService(
        app,
        lambda app: WorkflowReconciler(app, app.delivery(Engine.TEMPORAL)),
        quiet=AT_ONCE,
        rest=AT_ONCE,
        sightings=Sightings(apart=AT_ONCE),
    )


def _look_twice(app: Any) -> dict[str, int]:
    service = _service(app)
    assert service.run(NEVER_STOPPED) == {}
    return dict(service.run(NEVER_STOPPED))


def _begin(world: TemporalWorld, task_id: str, *, worker: int) -> None:
    """Begin the job as a worker does that then dies."""
    row = world.row(task_id)
    started = Started(
        key=JobKey(tenant=SYSTEM_TENANT, job_id=job_id_for(task_id)),
        task_id=task_id,
        type=row["type"],
        engine=Engine.TEMPORAL,
        delivery=row["delivery"],
        queue="celery",
        worker="w@here",
        worker_number=worker,
    )
    assert world.app.recorder.record(started).applied


def _delete_workflow(world: TemporalWorld, task_id: str) -> None:
    world.temporal.run_cli("workflow", "delete", "--workflow-id", task_id, "--yes")

    def is_gone() -> bool:
        return not world.app.delivery(Engine.TEMPORAL).is_running(task_id)

    wait_until(is_gone, timeout=TIMEOUT, every=0.1)


def _update(world: TemporalWorld, task_id: str, change: str) -> None:
    with psycopg.connect(world.environment["DATABASE_URL"]) as connection:
        connection.execute(f"UPDATE jobs SET {change} WHERE job_id = %s", [job_id_for(task_id)])


@pytest.mark.parametrize("is_running", [False, True])
def test_a_terminated_workflow_cancels_its_job(own_world: TemporalWorld, is_running: bool) -> None:
    result = own_world.task("temporal.steady").delay()
    if is_running:
        _begin(own_world, result.id, worker=draw_number())
    own_world.temporal.run_cli("workflow", "terminate", "--workflow-id", result.id)

    assert _look_twice(own_world.app) == {"cancelled": 1}

    row = own_world.row(result.id)
    assert (row["status"], row["cancelled_by"]) == ("cancelled", "temporal")


def test_a_job_whose_workflow_is_gone_is_delivered_again(own_world: TemporalWorld) -> None:
    app = own_world.app
    waiting, lost = (own_world.task("parity.add").delay(1, number) for number in (1, 2))
    _begin(own_world, lost.id, worker=draw_number())  # dead: nobody holds that number's lock
    deliveries = [own_world.row(each.id)["delivery"] for each in (waiting, lost)]
    for each in (waiting, lost):
        _delete_workflow(own_world, each.id)

    assert _look_twice(app) == {"redelivered": 2}

    for each, former in zip((waiting, lost), deliveries, strict=True):
        row = own_world.row(each.id)
        assert row["status"] == "pending"
        assert row["delivery"] != former
    relay = RelayService(
        app,
        lambda app: Relay(app, app.delivery(Engine.TEMPORAL), is_held=lambda task_id: False),
        age=AT_ONCE,
    )
    assert relay.run(NEVER_STOPPED) == {"delivered": 2}
    own_world.worker("-c", "1")
    assert [each.get(timeout=TIMEOUT) for each in (waiting, lost)] == [2, 3]
    assert [own_world.row(each.id)["attempt"] for each in (waiting, lost)] == [1, 2]


def test_a_job_that_must_not_run_twice_is_not_delivered_again(own_world: TemporalWorld) -> None:
    result = own_world.task("temporal.early").delay()
    _begin(own_world, result.id, worker=draw_number())
    _delete_workflow(own_world, result.id)

    assert _look_twice(own_world.app) == {"failed": 1}

    assert "not to be run twice" in own_world.row(result.id)["error"]


def test_what_a_living_worker_runs_is_left_to_it(own_world: TemporalWorld) -> None:
    from jobbridge.app.worker.presence import Presence

    presence = Presence(own_world.app, name="w@here", engine=Engine.TEMPORAL)
    assert presence.open()
    result = own_world.task("temporal.steady").delay()
    _begin(own_world, result.id, worker=presence.number)
    _delete_workflow(own_world, result.id)

    assert _look_twice(own_world.app) == {}

    assert own_world.row(result.id)["status"] == "processing"
    presence.close()


def test_a_job_whose_workflow_runs_is_left_alone_however_slow_it_is(own_world: TemporalWorld) -> None:
    result = own_world.task("temporal.steady").delay()
    _begin(own_world, result.id, worker=draw_number())
    _update(own_world, result.id, "updated_at = now() - interval '3 days'")

    assert _look_twice(own_world.app) == {}

    assert own_world.row(result.id)["status"] == "processing"


def test_an_end_that_was_not_written_is_written_from_the_workflow(world: TemporalWorld) -> None:
    done = world.task("parity.add").delay(20, 22)
    failed = world.task("parity.fail").delay("on purpose")
    assert done.get(timeout=TIMEOUT) == 42
    world.wait_for_closed(done.id, "COMPLETED")
    world.wait_for_closed(failed.id, "FAILED")
    unwritten = "status = 'processing', result = NULL, error = NULL, completed_at = NULL, updated_at = now()"
    for each in (done, failed):
        _update(world, each.id, unwritten)

    counters = _look_twice(world.app)

    assert counters == {"completed": 1, "failed": 1}
    assert world.row(done.id)["status"] == "completed"
    assert world.row(done.id)["result"] == 42
    assert world.row(failed.id)["status"] == "failed"
    assert world.row(failed.id)["error"] == "ValueError: on purpose"


def test_nothing_is_settled_while_temporal_is_away_or_has_no_such_namespace(own_world: TemporalWorld) -> None:
    from jobbridge.settings import load_settings
    from tests.integration.temporal.tasks import make_app

    result = own_world.task("temporal.steady").delay()
    _update(own_world, result.id, "updated_at = now() - interval '1 hour'")
    for wrong in ({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, {"TEMPORAL_NAMESPACE": "elsewhere"}):
        app = make_app(settings=load_settings({**own_world.environment, **wrong}))
        app.finalize()
        try:
            with pytest.raises(EngineUnavailable):
                _service(app).run(NEVER_STOPPED)
        finally:
            app.close()

    assert own_world.row(result.id)["status"] == "queued"


def test_a_worker_offers_what_its_engine_needs(own_world: TemporalWorld) -> None:
    names = {
        engine: set(make_maintainer(own_world.app, engine, "w@here")._services)
        for engine in (Engine.CELERY, Engine.TEMPORAL, None)
    }

    assert names[None] >= {"reaper", "pruner", "reconciler", "relay", "workflow-reconciler"}
    assert names[Engine.CELERY] == names[None] - {"workflow-reconciler"}
    assert names[Engine.TEMPORAL] == names[None] - {"relay"}  # it has one that is quicker


@pytest.mark.long
def test_jobs_survive_workers_that_are_killed_at_random(own_world: TemporalWorld) -> None:
    """Each job runs to its end, row and workflow say so, whenever its worker died."""
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    workers = [own_world.worker("-c", "2") for _ in range(2)]
    task = own_world.task("temporal.takes")
    results = [task.delay({"seconds": chance.uniform(0.1, 1.0)}) for _ in range(30)]

    for _ in range(3):
        threading.Event().wait(chance.uniform(0.2, 1.5))
        workers.pop(0).kill()
        workers.append(own_world.worker("-c", "2"))

    deadline = time.monotonic() + 120
    for result in results:
        own_world.wait_for_status(result.id, "completed", timeout=deadline - time.monotonic())
        own_world.wait_for_closed(result.id, "COMPLETED", timeout=30)
    rows = own_world.rows()
    assert len(rows) == 30
    assert {row["attempt"] for row in rows} <= set(range(1, 6))

"""Rows whose workflow is over or gone are settled; rows of which nothing is known are left alone."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from jobbridge.bootstrap import make_maintainer
from jobbridge.core.events import Cancelled, Started
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, job_id_for
from jobbridge.errors import EngineUnavailable
from jobbridge.maintenance.relay import RelayService
from jobbridge.maintenance.sightings import Sightings
from jobbridge.maintenance.workflows import WorkflowService
from jobbridge.postgres.presence import draw_number
from jobbridge.store.workers.workers import WorkerStore
from jobbridge.temporal.deliver.relay import Relay
from jobbridge.temporal.reconcile.overdue import HOPELESS
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

    # Others' workflows of this world may be about to close, and be told what they know.
    assert counters | {"workflow told": 0} == {"completed": 1, "failed": 1, "workflow told": 0}
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


def _wait_for_overdue(world: TemporalWorld, number: int) -> None:
    """Wait until Temporal lists what still runs: it does so a moment late."""
    reconciler = WorkflowReconciler(world.app, world.app.delivery(Engine.TEMPORAL))
    wait_until(lambda: len(reconciler.overdue(quiet=AT_ONCE)) == number, timeout=TIMEOUT, every=0.2)


def test_a_workflow_that_runs_though_its_row_has_ended_ends_as_the_row(own_world: TemporalWorld) -> None:
    own_world.worker("-c", "1")
    completed, failed, cancelled = (
        own_world.task("parity.add").apply_async((1, 1), countdown=3600) for _ in range(3)
    )
    waits = own_world.task("parity.fan_out").delay({"children": 1, "each": {"holds": [0]}})
    for each, step in (
        (completed, "scheduled"),
        (failed, "scheduled"),
        (cancelled, "scheduled"),
        (waits, "waiting"),
    ):
        wait_until(lambda: own_world.state(each.id)["step"] == step, timeout=TIMEOUT, every=0.2)  # noqa: B023
    own_world.wait_for_start(waits.id, "children")
    runs = own_world.task("temporal.steady").delay()  # waits for the only process, which the child has
    wait_until(lambda: own_world.state(runs.id)["step"] == "processing", timeout=TIMEOUT, every=0.2)
    _update(own_world, completed.id, "status = 'completed', result = '7'")
    _update(own_world, failed.id, "status = 'failed', error = 'ValueError: on purpose'")
    for each in (cancelled, waits, runs):
        event = Cancelled(key=own_world.app.jobs.find(job_id_for(each.id)).key, reason="Temporal was away.")
        assert own_world.app.recorder.record(event).applied  # and the workflow was not told
    _wait_for_overdue(own_world, 5)

    assert _look_twice(own_world.app) == {"workflow told": 5}

    own_world.wait_for_closed(completed.id, "COMPLETED")
    assert own_world.result(completed.id)["result"] == 7
    own_world.wait_for_closed(failed.id, "FAILED")
    for each in (cancelled, waits, runs):
        own_world.wait_for_closed(each.id, "COMPLETED")
        assert own_world.result(each.id)["error"] == "cancelled: Temporal was away."
    _wait_for_overdue(own_world, 0)


def test_a_workflow_that_is_not_proven_to_be_ours_is_left_alone(own_world: TemporalWorld) -> None:
    """Another installation in this namespace may have the same queue names, and a job of the same id."""
    ours, theirs = (own_world.task("parity.add").apply_async((1, 1), countdown=3600) for _ in range(2))
    _delete_workflow(own_world, theirs.id)
    own_world.start_workflow("parity.add", {"args": [1, 1]}, job_id=theirs.id)
    for each in (ours, theirs):
        _update(own_world, each.id, "status = 'cancelled'")
    _wait_for_overdue(own_world, 1)

    assert _look_twice(own_world.app) == {"workflow told": 1}

    signals = [event["eventType"] for event in own_world.history(theirs.id)]
    assert "EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED" not in signals


@workflow.defn(name="genericJobWorkflow")
class Broken:
    """As a release that cannot go on: each of its tasks fails."""

    @workflow.run
    async def run(self, document: Any) -> None:
        raise RuntimeError("cannot go on")


async def _fail_tasks(client: Client, world: TemporalWorld, workflow_id: str) -> None:
    queue = world.environment["TEMPORAL_JOB_TASK_QUEUE"]
    handle = client.get_workflow_handle(workflow_id)
    async with Worker(
        client, task_queue=queue, workflows=[Broken], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        while (await handle.describe()).raw_description.pending_workflow_task.attempt < HOPELESS:
            await asyncio.sleep(0.1)


def test_a_workflow_that_can_hear_nothing_is_terminated_when_its_row_has_ended(
    own_world: TemporalWorld,
) -> None:
    result = own_world.task("parity.add").delay(1, 1)
    client = own_world.app.delivery(Engine.TEMPORAL).client
    client.call(lambda own: _fail_tasks(own, own_world, result.id), timeout=timedelta(seconds=60))
    _update(own_world, result.id, "status = 'cancelled'")
    _wait_for_overdue(own_world, 1)

    assert _look_twice(own_world.app) == {"workflow terminated": 1}

    assert own_world.status(result.id) == "TERMINATED"
    assert own_world.row(result.id)["status"] == "cancelled"


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

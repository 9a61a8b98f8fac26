"""Light delivery: a job that is an activity of its own at Temporal, and no workflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import ActivityExecutionStatus, Client
from temporalio.service import RPCError

from jobbridge import JobContext, job
from jobbridge.app.schedules.declared import refused_declarations, sync_declared
from jobbridge.core.events import Cancelled, Completed, Started
from jobbridge.core.keys import Engine, job_id_for
from jobbridge.core.light import external_id_of
from jobbridge.dev.temporal import TemporalServer, run_temporal
from jobbridge.diagnosis.engines import check_temporal
from jobbridge.diagnosis.explain import explain
from jobbridge.errors import UnsupportedOption
from jobbridge.temporal.reconcile.drift import drift
from jobbridge.temporal.reconcile.inspect import look_at
from jobbridge.temporal.reconcile.workflows import WorkflowReconciler
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld, make_world
from tests.integration.temporal.test_reconciling import _look_twice
from tests.support import wait_until


@job("light.declared", temporal_light=True)
def declared(ctx: JobContext, data: dict[str, Any]) -> None:
    """Goes so, whatever the settings say."""


@pytest.fixture
def light(database_url: str, temporal: TemporalServer, tmp_path: Path) -> Iterator[TemporalWorld]:
    with ExitStack() as started:
        yield make_world(database_url, temporal, tmp_path, started, TEMPORAL_LIGHT="true")


def _wait_for_end(world: TemporalWorld, task_id: str, status: ActivityExecutionStatus) -> None:
    wait_until(lambda: world.activity(task_id).status is status, timeout=TIMEOUT, message=status.name)


def _do(world: TemporalWorld, work: Any) -> Any:
    return world.app.delivery(Engine.TEMPORAL).client.call(work)


def test_it_is_an_activity_with_the_row_of_any_job(light: TemporalWorld) -> None:
    result = light.task("parity.add").apply_async((2, 3), countdown=0.5)
    row = light.app.jobs.find(light.row(result.id)["job_id"])
    assert row is not None
    told = explain(light.app, row).reasons
    assert "In Temporal its activity is scheduled" in " ".join(reason.what for reason in told), told
    assert not drift(light.app)
    assert [check.is_good for check in check_temporal(light.app, light.app.settings)] == [True]
    light.worker("-c", "1")

    assert result.get(timeout=TIMEOUT) == 5
    row = light.row(result.id)
    _wait_for_end(light, result.id, ActivityExecutionStatus.COMPLETED)
    activity = light.activity(result.id)
    assert (row["external_id"], row["external_run_id"]) == (
        external_id_of(result.id),
        activity.activity_run_id,
    )

    async def describe_workflow(client: Client) -> Any:
        return await client.get_workflow_handle(result.id).describe()

    with pytest.raises(RPCError, match="not found"):
        _do(light, describe_workflow)


def test_it_is_told_why_its_last_attempt_ended(light: TemporalWorld) -> None:
    light.worker("-c", "1")
    result = light.task("parity.retry_slowly").delay()
    external_id = external_id_of(result.id)

    def last_failure() -> str | None:
        facts = look_at(light.app, external_id, "celery")
        return facts.activities[0].last_failure if facts and facts.activities else None

    wait_until(last_failure, timeout=TIMEOUT, every=0.2)
    assert light.app.cancel_job(result.id)


def test_while_it_waits_it_is_cancelled_at_once(light: TemporalWorld) -> None:
    result = light.task("parity.add").apply_async((2, 3), countdown=3600)

    assert light.app.cancel_job(result.id)

    assert light.row(result.id)["status"] == "cancelled"
    assert light.activity(result.id).status is ActivityExecutionStatus.CANCELED


def test_who_cancels_the_activity_cancels_the_job(light: TemporalWorld) -> None:
    light.worker("-c", "1")
    result = light.task("temporal.steady").delay()
    light.wait_for_start(result.id)

    async def cancel(client: Client) -> None:
        await client.get_activity_handle(result.id).cancel()

    _do(light, cancel)

    assert light.wait_for_status(result.id, "cancelled")["cancel_reason"] == "The activity was cancelled."
    _wait_for_end(light, result.id, ActivityExecutionStatus.CANCELED)
    assert light.lines(result.id, "done") == []


def test_a_terminated_activity_cancels_its_job(light: TemporalWorld) -> None:
    result = light.task("parity.add").delay(1, 2)

    async def terminate(client: Client) -> None:
        await client.get_activity_handle(result.id).terminate()

    _do(light, terminate)

    assert drift(light.app).rows
    assert _look_twice(light.app) == {"cancelled": 1}
    assert light.row(result.id)["cancelled_by"] == "temporal"


def test_an_activity_that_runs_though_its_row_has_ended_is_cancelled(light: TemporalWorld) -> None:
    """That of a job which another installation gave the same id is left alone."""
    waits, theirs = (light.task("parity.add").apply_async((1, 1), countdown=3600) for _ in range(2))
    document = {"jobName": "parity.add", "data": {"args": [1, 1]}}

    async def replace_by_another(client: Client) -> None:
        await client.get_activity_handle(theirs.id).terminate()
        await client.start_activity(
            "executeJobHandler", document, id=theirs.id, start_to_close_timeout=timedelta(minutes=1),
            task_queue=light.environment["TEMPORAL_JOB_TASK_QUEUE"], start_delay=timedelta(hours=1),
        )  # fmt: skip

    _do(light, replace_by_another)
    for each in (waits, theirs):
        key = light.app.jobs.find(job_id_for(each.id)).key
        assert light.app.recorder.record(Cancelled(key=key, reason="Temporal was away.")).applied
    reconciler = WorkflowReconciler(light.app, light.app.delivery(Engine.TEMPORAL))
    wait_until(lambda: len(reconciler.overdue(quiet=timedelta())) == 1, timeout=TIMEOUT, every=0.2)

    assert _look_twice(light.app) == {"workflow cancelled": 1}

    assert light.activity(waits.id).status is ActivityExecutionStatus.CANCELED
    assert light.activity(theirs.id).status is ActivityExecutionStatus.RUNNING
    assert light.row(waits.id)["cancel_reason"] == "Temporal was away."


def test_an_end_that_was_written_before_temporal_heard_of_it_is_told(light: TemporalWorld) -> None:
    """A row that has ended has no message any more, and the activity has it by reference."""
    result = light.task("temporal.length").delay("x" * 300_000)
    key = light.app.jobs.find(job_id_for(result.id)).key
    started = Started(
        key=key, task_id=result.id, type="temporal.length", engine=Engine.TEMPORAL, queue="celery", worker="w@here",
        delivery=light.row(result.id)["delivery"],
    )  # fmt: skip
    ended = Completed(key=key, attempt=1, result=7)
    assert all(light.app.recorder.record(event).applied for event in (started, ended))

    light.worker("-c", "1")

    _wait_for_end(light, result.id, ActivityExecutionStatus.COMPLETED)


def test_its_heartbeats_tell_its_progress(light: TemporalWorld) -> None:
    light.worker("-c", "1")
    result = light.task("temporal.progressing").delay({})
    light.wait_for_start(result.id)

    async def told(client: Client) -> Any:
        description = await client.get_activity_handle(result.id).describe(include_heartbeat_details=True)
        details = await description.heartbeat_details()
        return details[0] if details else {}

    wait_until(lambda: "progress" in _do(light, told), timeout=TIMEOUT, every=0.2)
    heartbeat = _do(light, told)
    assert (heartbeat["progress"], heartbeat["message"]) == (25.0, "a quarter")
    assert heartbeat["delivery"] == str(light.row(result.id)["delivery"])
    light.release(result.id)
    _wait_for_end(light, result.id, ActivityExecutionStatus.COMPLETED)


def test_a_job_that_must_not_run_twice_fails_when_its_worker_is_killed(light: TemporalWorld) -> None:
    first = light.worker("-c", "1")
    result = light.task("temporal.early").delay()
    light.wait_for_start(result.id)
    wait_until(lambda: light.activity(result.id).total_heartbeat_count, timeout=TIMEOUT)

    first.kill()
    light.worker("-c", "1")

    row = light.wait_for_status(result.id, "failed")
    assert "not to be run twice" in row["error"]
    assert len(light.lines(result.id, "started")) == 1
    _wait_for_end(light, result.id, ActivityExecutionStatus.FAILED)


def test_what_another_client_started_is_a_job_too(light: TemporalWorld) -> None:
    light.worker("-c", "1")
    document = {"jobName": "temporal.echo", "tenantId": "acme", "data": {"x": 1}}

    async def start(client: Client) -> Any:
        handle = await client.start_activity(
            "executeJobHandler", document, id="foreign", start_to_close_timeout=timedelta(minutes=1),
            task_queue=light.environment["TEMPORAL_JOB_TASK_QUEUE"],
        )  # fmt: skip
        return await handle.result()

    answer = _do(light, start)

    assert (answer["success"], answer["result"]) == (True, {"data": {"x": 1}, "tenant": "acme"})
    (row,) = light.rows("external_id = %s", external_id_of("foreign"))
    assert (row["tenant"], row["status"]) == ("acme", "completed")


def test_where_the_server_has_none_it_goes_with_a_workflow(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    off = {"activity.enableStandalone": False}
    with ExitStack() as started:
        temporal = started.enter_context(run_temporal(log_path=tmp_path / "temporal.log", dynamic_config=off))
        world = make_world(database_url, temporal, tmp_path, started, TEMPORAL_LIGHT="true")

        result = world.task("parity.add").delay(2, 3)
        assert "has no activities without a workflow" in caplog.text
        assert world.row(result.id)["external_id"] == result.id
        assert not drift(world.app)
        (told,) = check_temporal(world.app, world.app.settings)
        assert not told.is_good
        assert "has no activities without a workflow" in told.found
        world.worker("-c", "1")

        assert result.get(timeout=TIMEOUT) == 5
        world.wait_for_closed(result.id, "COMPLETED")


def test_a_handler_may_be_declared_so(own_world: TemporalWorld) -> None:
    result = own_world.task("light.declared").delay({})

    assert own_world.row(result.id)["external_id"] == external_id_of(result.id)


def test_it_is_refused_for_an_engine_that_has_no_workflows(light: TemporalWorld) -> None:
    with pytest.raises(UnsupportedOption, match="temporal_light is for jobs on temporal"):
        light.task("parity.add").apply_async((1, 2), engine="celery", temporal_light=True)

    light.task("parity.add").apply_async((1, 2), engine="celery")
    result = light.task("parity.add").apply_async((1, 2), temporal_light=False)
    assert light.row(result.id)["external_id"] == result.id


def test_what_sql_enqueues_goes_so_too_and_its_retries_stay_there(light: TemporalWorld) -> None:
    light.worker("-c", "1")
    enqueued = "SELECT jobbridge.enqueue('parity.retry_until', '[2]', engine => 'temporal') AS id"
    (sent,) = light.looking.rows(enqueued)

    row = light.wait_for_status(sent["id"], "completed")

    assert (row["external_id"], row["attempt"], row["result"]) == (external_id_of(str(sent["id"])), 3, 3)
    _wait_for_end(light, str(sent["id"]), ActivityExecutionStatus.COMPLETED)


def test_the_retries_of_what_another_client_started_stay_there(light: TemporalWorld) -> None:
    light.worker("-c", "1")
    document = {"jobName": "parity.retry_until", "data": {"args": [2], "kwargs": {}}}

    async def start(client: Client) -> Any:
        handle = await client.start_activity(
            "executeJobHandler", document, id="foreign-retry", start_to_close_timeout=timedelta(minutes=1),
            task_queue=light.environment["TEMPORAL_JOB_TASK_QUEUE"],
        )  # fmt: skip
        return await handle.result()

    assert _do(light, start)["result"] == 3
    (row,) = light.rows("task_id = 'foreign-retry'")
    assert (row["external_id"], row["status"], row["attempt"]) == (
        external_id_of("foreign-retry"),
        "completed",
        3,
    )


def test_a_schedule_that_asks_for_it_is_refused_by_name(light: TemporalWorld) -> None:
    """Temporal's schedules start workflows only; where the settings ask for it, fires have one all the same."""
    every = {"task": "parity.add", "schedule": 3600.0, "args": (1, 2)}
    light.app.conf.beat_schedule = {"light": {**every, "options": {"temporal_light": True}}, "other": every}

    (refused,) = refused_declarations(light.app).items()

    assert refused[0] == "light"
    assert "starts workflows only" in refused[1]


def test_a_fire_has_a_workflow_and_its_retries_stay_there(light: TemporalWorld) -> None:
    light.worker("-c", "1")
    light.app.conf.beat_schedule = {
        "fires": {"task": "parity.retry_until", "schedule": 2.0, "args": (1,), "options": {"expires": 60}}
    }
    sync_declared(light.app)

    wait_until(lambda: light.rows("status = 'completed'"), timeout=TIMEOUT, every=0.2)

    for row in light.rows("status = 'completed'"):
        assert "schedule" in row["metadata"]
        assert not str(row["external_id"]).startswith("activity/")
        light.wait_for_closed(row["external_id"], "COMPLETED")

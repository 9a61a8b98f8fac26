"""Celery's worker, with Temporal as its source of messages: what a Celery user expects of any worker."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.support import wait_until


def _inspect(world: TemporalWorld, command: str, *arguments: Any) -> Any:
    # There is one worker: with its reply the wait is over.
    replies = getattr(world.app.control.inspect(timeout=5, limit=1), command)(*arguments) or {}
    return next(iter(replies.values()), None)


def test_inspect_sees_the_worker_and_what_it_runs(world: TemporalWorld) -> None:
    assert _inspect(world, "ping") == {"ok": "pong"}
    assert {queue["name"] for queue in _inspect(world, "active_queues")} == {"celery", "other"}

    result = world.task("temporal.steady").delay()
    world.wait_for_start(result.id)
    assert result.id in [task["id"] for task in _inspect(world, "active")]
    assert "temporal.steady" in _inspect(world, "registered")
    assert _inspect(world, "stats")["pool"]["max-concurrency"] == 2
    world.release(result.id)
    assert result.get(timeout=TIMEOUT) == 1


def test_another_queue_is_another_task_queue(world: TemporalWorld) -> None:
    result = world.task("parity.add").apply_async((4, 5), queue="other")

    assert result.get(timeout=TIMEOUT) == 9
    assert world.row(result.id)["queue"] == "other"
    description = world.cli("workflow", "describe", "--workflow-id", result.id)
    assert description["executionConfig"]["taskQueue"]["name"] == "other"


def test_a_queue_is_added_and_cancelled_by_remote_control(world: TemporalWorld) -> None:
    world.app.control.add_consumer("third", reply=True, timeout=5, limit=1)
    assert world.task("parity.add").apply_async((1, 2), queue="third").get(timeout=TIMEOUT) == 3

    world.app.control.cancel_consumer("third", reply=True, timeout=5, limit=1)
    wait_until(lambda: "third" not in {queue["name"] for queue in _inspect(world, "active_queues")})
    assert world.task("parity.add").delay(2, 2).get(timeout=TIMEOUT) == 4


def test_revoke_with_terminate_by_celerys_control_ends_the_workflow(world: TemporalWorld) -> None:
    result = world.task("temporal.steady").delay()
    world.wait_for_start(result.id)

    world.app.control.revoke(result.id, terminate=True)

    world.wait_for_closed(result.id, "COMPLETED")
    assert world.row(result.id)["status"] == "cancelled"
    assert world.result(result.id)["success"] is False


def test_a_payload_over_the_limit_travels_by_reference(world: TemporalWorld) -> None:
    text = "x" * 600_000
    result = world.task("temporal.length").delay(text)

    assert result.get(timeout=TIMEOUT) == len(text)
    started = world.history(result.id)[0]["workflowExecutionStartedEventAttributes"]
    assert len(str(started)) < 20_000


def test_a_result_over_the_limit_stays_in_the_row(world: TemporalWorld) -> None:
    result = world.task("temporal.large").delay(600_000)

    assert len(result.get(timeout=TIMEOUT)) == 600_000
    world.wait_for_closed(result.id, "COMPLETED")
    assert world.result(result.id)["result"] == {"$ref": "jobs.result"}


def test_arguments_that_json_cannot_carry_come_through(world: TemporalWorld) -> None:
    result = world.task("temporal.length").apply_async((b"\x00\xff",), serializer="pickle")

    assert result.get(timeout=TIMEOUT) == 2


def test_a_job_sent_from_a_pool_child_is_delivered_by_the_relay(world: TemporalWorld) -> None:
    sent = world.task("temporal.sends").delay(6).get(timeout=TIMEOUT)

    assert world.wait_for_status(sent, "completed")["result"] == 7
    assert world.row(sent)["external_run_id"]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_the_other_pools_run_jobs_and_stop(own_world: TemporalWorld, pool: str) -> None:
    worker = own_world.worker("-P", pool, "-c", "1")

    assert own_world.task("parity.add").delay(1, 2).get(timeout=TIMEOUT) == 3
    retried = own_world.task("parity.retry_until").delay(1)
    assert retried.get(timeout=TIMEOUT) == 2
    failed = own_world.task("parity.fail").delay("no")
    own_world.wait_for_status(failed.id, "failed")

    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: not worker.is_running, timeout=10)
    assert worker.exit_code == 0


def test_a_cooperative_job_in_solo_notices_its_cancellation(own_world: TemporalWorld) -> None:
    own_world.worker("-P", "solo")
    job_id = own_world.start_workflow("parity.long", {})
    own_world.wait_for_start(job_id, "long.started")

    own_world.signal(job_id, "cancelJob", {"reason": "enough"})

    own_world.wait_for_closed(job_id, "COMPLETED")
    assert own_world.row(job_id)["status"] == "cancelled"


def test_a_green_pool_is_refused(own_world: TemporalWorld) -> None:
    with pytest.raises(AssertionError, match="gevent"):
        own_world.worker("-P", "gevent")

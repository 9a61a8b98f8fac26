"""The same call, the same result and the same rows on both engines."""

from __future__ import annotations

import os
import signal
import uuid

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError

from jobbridge.errors import InvalidJobData, TenantRequired
from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 30


def test_a_task_returns_its_result_and_leaves_one_row(world: World) -> None:
    result = world.task("add").delay(2, 3)

    assert result.get(timeout=TIMEOUT) == 5
    assert result.state == "SUCCESS"
    row = world.row(result.id)
    assert (row["type"], row["status"], row["attempt"], row["result"]) == ("parity.add", "completed", 1, 5)
    assert row["runner_type"] == world.engine
    assert row["external_id"] == result.id
    assert row["message"] is None
    assert [(d["step_name"], d["status"], d["retry_count"]) for d in world.details(result.id)] == [
        ("attempt", "completed", 1)
    ]
    assert [r["job_id"] for r in world.rows("external_id = %s", result.id)] == [uuid.UUID(result.id)]
    assert uuid.UUID(result.id) in {r["job_id"] for r in world.rows("runner_type = %s", world.engine.value)}


def test_an_error_is_failed_everywhere_with_its_traceback(world: World) -> None:
    result = world.task("fail").delay("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        result.get(timeout=TIMEOUT)
    assert result.state == "FAILURE"
    assert "on purpose" in result.traceback
    row = world.row(result.id)
    assert row["status"] == "failed"
    assert row["error"] == "ValueError: on purpose"
    assert "Traceback" in row["traceback"]


def test_a_result_that_nobody_wants_is_not_kept_but_the_job_completes(world: World) -> None:
    result = world.task("no_result").delay()

    row = world.wait_for_status(result.id, "completed")
    assert row["result"] is None


def test_retry_makes_further_attempts_of_the_same_job(world: World) -> None:
    result = world.task("retry_until").delay(2)

    assert result.get(timeout=TIMEOUT) == 3
    row = world.row(result.id)
    assert (row["status"], row["attempt"]) == ("completed", 3)
    assert [(d["retry_count"], d["status"]) for d in world.details(result.id)] == [
        (1, "failed"),
        (2, "failed"),
        (3, "completed"),
    ]
    assert len(world.rows("root_id = %s", result.id)) == 1


def test_autoretry_for_is_honoured(world: World) -> None:
    result = world.task("auto_retry").delay(2)

    assert result.get(timeout=TIMEOUT) == 3
    assert world.row(result.id)["attempt"] == 3


def test_a_handler_that_fails_twice_and_then_works_shows_three_attempts(world: World) -> None:
    result = world.task("fails_twice").delay({})

    assert result.get(timeout=TIMEOUT) == 3
    assert (world.row(result.id)["status"], world.row(result.id)["attempt"]) == ("completed", 3)


def test_a_handler_that_always_fails_ends_failed_after_its_attempts(world: World) -> None:
    result = world.task("always_fails").delay({})

    with pytest.raises(RuntimeError, match="attempt 2"):
        result.get(timeout=TIMEOUT)
    row = world.row(result.id)
    assert (row["status"], row["attempt"], row["error"]) == ("failed", 2, "RuntimeError: attempt 2")
    assert "Traceback" in row["traceback"]


def test_a_non_retryable_error_ends_at_once(world: World) -> None:
    result = world.task("hopeless").delay({})

    world.wait_for_status(result.id, "failed")
    assert len(world.lines(result, "hopeless")) == 1


def test_the_timeout_ends_an_attempt_and_the_next_one_runs(world: World) -> None:
    result = world.task("too_slow").delay({})

    assert result.get(timeout=TIMEOUT) == 2
    assert world.row(result.id)["attempt"] == 2


def test_a_hard_time_limit_fails_the_job(world: World) -> None:
    result = world.task("slow").delay()

    row = world.wait_for_status(result.id, "failed")
    assert "TimeLimitExceeded" in row["error"]


def test_handler_data_is_validated_before_anything_is_written(world: World) -> None:
    with pytest.raises(InvalidJobData, match="name"):
        world.task("greet").apply_async([{"times": 2}], tenant="t1")
    with pytest.raises(TenantRequired):
        world.task("greet").delay({"name": "Ada"})

    assert world.rows("type = 'parity.greet' AND tenant IN ('t1', 'nobody')") == []


def test_a_handler_knows_its_job(world: World) -> None:
    result = world.task("greet").apply_async([{"name": "Ada", "times": 3}], tenant="acme")

    assert result.get(timeout=TIMEOUT) == {
        "greeting": "Hello Ada",
        "tenant": "acme",
        "attempt": 1,
        "engine": world.engine.value,
    }
    row = world.row(result.id)
    assert (row["tenant"], row["progress"], row["progress_message"]) == ("acme", 100, "greeting 3")
    assert row["metadata"]["data"] == {"name": "Ada", "times": 3}


def test_an_async_handler_runs(world: World) -> None:
    assert world.task("asynchronous").delay({"word": "yes"}).get(timeout=TIMEOUT) == "async yes"


def test_a_finished_step_with_a_key_is_not_run_again(world: World) -> None:
    result = world.task("steps").delay({})

    assert result.get(timeout=TIMEOUT) == [1, 1]
    assert world.row(result.id)["attempt"] == 2
    assert (len(world.lines(result, "step.a")), len(world.lines(result, "step.b"))) == (1, 1)


def test_chain_group_and_chord(world: World) -> None:
    add, total = world.task("add"), world.task("total")

    assert chain(add.s(1, 2), add.s(3), add.s(4)).delay().get(timeout=TIMEOUT) == 10
    assert group(add.s(i, i) for i in range(4)).delay().get(timeout=TIMEOUT) == [0, 2, 4, 6]
    assert chord([add.s(i, i) for i in range(4)], total.s()).delay().get(timeout=TIMEOUT) == 12


def test_replace_goes_on_under_the_same_id(world: World) -> None:
    result = world.task("replaced").delay(4)

    assert result.get(timeout=TIMEOUT) == 5
    assert len(world.rows("root_id = %s", result.id)) == 1


def test_replace_by_a_chain_ends_with_the_chains_result(world: World) -> None:
    result = world.task("replaced_by_chain").delay(4)

    assert result.get(timeout=TIMEOUT) == 15
    assert world.row(result.id)["status"] == "completed"


def test_reject_with_requeue_runs_again(world: World) -> None:
    assert world.task("requeue_once").delay().get(timeout=TIMEOUT) == 2


def test_reject_without_requeue_is_a_failure(world: World) -> None:
    result = world.task("rejected").delay()

    world.wait_for_status(result.id, "failed")


def test_ignore_completes_without_a_result(world: World) -> None:
    result = world.task("ignored").delay()

    world.wait_for_status(result.id, "completed")


def test_a_countdown_is_kept(world: World) -> None:
    result = world.task("add").apply_async([1, 1], countdown=2)

    assert world.row(result.id)["status"] == "scheduled"
    assert result.get(timeout=TIMEOUT) == 2
    row = world.row(result.id)
    assert row["started_at"] >= row["run_at"]


def test_what_is_due_soon_is_heard_of_beside_what_is_due_now(world: World) -> None:
    """Sent by one statement; a worker that hears of the one alone looks for the other a minute later."""
    add = world.task("add")

    results = group(add.s(1, 1), add.s(1, 2).set(countdown=2)).apply_async()

    assert results.get(timeout=30) == [2, 3]


def test_an_expired_job_never_runs(own_world: World) -> None:
    result = own_world.task("add").apply_async([1, 1], expires=0.2)
    wait_until(lambda: own_world.rows("expires_at < now()"))
    own_world.worker()

    own_world.wait_for_status(result.id, "expired")
    assert own_world.lines(result, "add") == []


def test_sending_the_same_id_twice_runs_once(own_world: World) -> None:
    task_id = str(uuid.uuid4())
    own_world.task("add").apply_async([1, 2], task_id=task_id)
    own_world.task("add").apply_async([1, 2], task_id=task_id)
    own_world.worker()

    assert own_world.app.AsyncResult(task_id).get(timeout=TIMEOUT) == 3
    own_world.task("add").delay(9, 9).get(timeout=TIMEOUT)
    assert len(own_world.lines(task_id, "add")) == 1


def test_a_cancelled_waiting_job_never_runs(own_world: World) -> None:
    result = own_world.task("add").delay(1, 2)
    assert own_world.app.cancel_job(result.id, reason="changed my mind", cancelled_by="ada")
    own_world.worker()

    assert own_world.task("add").delay(5, 5).get(timeout=TIMEOUT) == 10
    row = own_world.row(result.id)
    assert (row["status"], row["cancel_reason"], row["cancelled_by"]) == (
        "cancelled",
        "changed my mind",
        "ada",
    )
    assert own_world.lines(result, "add") == []


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_cancel_reaches_running_code(own_world: World, pool: str) -> None:
    own_world.worker("-P", pool)
    result = own_world.task("long").delay({})
    wait_until(lambda: own_world.lines(result, "long.started"), timeout=TIMEOUT)

    assert own_world.app.cancel_job(result.id, reason="enough")

    with pytest.raises(TaskRevokedError):
        result.get(timeout=TIMEOUT)
    assert own_world.task("add").delay(5, 5).get(timeout=TIMEOUT) == 10
    assert own_world.row(result.id)["status"] == "cancelled"
    assert own_world.lines(result, "long.finished") == []


def test_a_killed_worker_loses_nothing(own_world: World) -> None:
    first = own_world.worker("-c", "1")
    result = own_world.task("hold").delay()
    wait_until(lambda: own_world.lines(result, "hold.pids"), timeout=TIMEOUT)

    first.kill()
    own_world.worker("-c", "1")
    wait_until(
        lambda: len(own_world.lines(result, "hold.pids")) == 2, timeout=15, message="runs on the other worker"
    )
    own_world.release(result)

    assert result.get(timeout=TIMEOUT) == 1
    row = own_world.row(result.id)
    assert (row["status"], row["attempt"]) == ("completed", 2)


def test_what_may_not_run_twice_does_not_when_its_worker_is_killed_as_it_begins(own_world: World) -> None:
    first = own_world.worker("-c", "1")
    result = own_world.task("hold_early").delay()
    wait_until(lambda: own_world.lines(result, "hold.pids"), timeout=TIMEOUT)
    first.kill()  # so soon that Temporal has not heard of the beginning

    own_world.worker("-c", "1")
    row = wait_until(
        lambda: row if (row := own_world.row(result.id))["status"] == "failed" else None, timeout=90
    )
    assert "lost" in row["error"]
    assert len(own_world.lines(result, "hold.pids")) == 1


def test_a_killed_pool_process_is_replaced_and_the_job_runs_again(world: World) -> None:
    result = world.task("hold").delay()
    (pid,) = wait_until(lambda: world.lines(result, "hold.pids"), timeout=TIMEOUT)

    os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: len(world.lines(result, "hold.pids")) == 2, timeout=15)
    world.release(result)

    assert result.get(timeout=TIMEOUT) == 1


def test_a_job_that_kills_its_process_each_time_is_stopped(world: World) -> None:
    result = world.task("kills_itself").delay(1000)

    world.wait_for_status(result.id, "failed", timeout=60)
    assert len(world.lines(result, "kills_itself")) < 20


def test_a_warm_shutdown_finishes_what_runs(own_world: World) -> None:
    worker = own_world.worker()
    result = own_world.task("hold").delay()
    wait_until(lambda: own_world.lines(result, "hold.pids"), timeout=TIMEOUT)

    os.kill(worker.pid, signal.SIGTERM)
    own_world.release(result)

    row = own_world.wait_for_status(result.id, "completed")
    assert row["attempt"] == 1
    wait_until(lambda: not worker.is_running, timeout=TIMEOUT)


def test_sending_in_the_callers_transaction(world: World) -> None:
    import psycopg

    with psycopg.connect(world.database_url) as connection:
        with world.app.enqueue_on(connection):
            lost = world.task("add").delay(1, 1)
        connection.rollback()
        with world.app.enqueue_on(connection):
            kept = world.task("add").delay(2, 2)
        assert world.rows("job_id = ANY(%s::uuid[])", [lost.id, kept.id]) == []
        connection.commit()

    assert kept.get(timeout=TIMEOUT) == 4
    assert world.rows("job_id = %s", lost.id) == []

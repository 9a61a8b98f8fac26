"""Tasks whose strategy hands requests to the pool by itself (celery-batches), request classes and pools of users'."""

from __future__ import annotations

import pytest
from celery import chord, states
from celery.exceptions import TimeLimitExceeded

from tests.parity import batch_tasks, own_pool  # noqa: F401  (their tasks are the app's)
from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 30


def test_jobs_of_a_batch_end_as_their_task_says(world: World) -> None:
    told, silent = world.task("batch").delay(2), world.task("batch").delay("silent")

    assert told.get(timeout=TIMEOUT) == 4
    row = world.wait_for_status(told.id, "completed")
    assert (row["attempt"], row["result"]) == (1, 4)
    assert row["started_at"] is not None
    row = world.wait_for_status(silent.id, "completed")
    assert (row["attempt"], world.app.AsyncResult(silent.id).state) == (1, states.PENDING)


def test_a_batch_that_fails_fails_its_jobs(world: World) -> None:
    results = [world.task("batch").delay("fail") for _ in range(2)]

    rows = [world.wait_for_status(each.id, "failed") for each in results]

    assert [row["error"] for row in rows] == ["ValueError: this batch fails"] * 2


def test_a_batch_fails_one_of_its_jobs(world: World) -> None:
    bad, good = world.task("batch").delay("bad"), world.task("batch").delay(4)

    with pytest.raises(ValueError, match="this one fails"):
        bad.get(timeout=TIMEOUT)
    assert good.get(timeout=TIMEOUT) == 8
    assert world.wait_for_status(bad.id, "failed")["attempt"] == 1


def test_a_job_that_was_cancelled_is_left_out_of_its_batch(own_world: World) -> None:
    cancelled = own_world.task("batch").delay(1)
    own_world.app.cancel_job(cancelled.id)
    own_world.worker("-P", "threads")

    assert own_world.task("batch").delay(3).get(timeout=TIMEOUT) == 6
    row = own_world.row(cancelled.id)
    assert (row["status"], row["attempt"], row["result"]) == ("cancelled", 0, None)


def test_a_part_of_a_chord_may_be_of_a_batch(world: World) -> None:
    parts = [world.task("batch").s(each) for each in (1, 2, 3)]

    assert chord(parts, world.task("total").s()).delay().get(timeout=TIMEOUT) == 12


def test_what_a_strategy_acknowledges_unseen_is_completed(world: World) -> None:
    result = world.task("swallowed").delay()

    row = world.wait_for_status(result.id, "completed")
    assert (row["attempt"], row["error"]) == (1, None)
    wait_until(lambda: world.app.AsyncResult(result.id).state == states.PENDING)


def test_a_users_own_request_class_is_told_and_rows_are_right(world: World) -> None:
    fine, fails = world.task("own_request").delay("fine"), world.task("own_request").delay("fails")
    slow = world.task("own_request").apply_async(["is slow"], time_limit=1)

    assert fine.get(timeout=TIMEOUT) == "fine"
    with pytest.raises(ValueError, match="fails"):
        fails.get(timeout=TIMEOUT)
    with pytest.raises(TimeLimitExceeded):
        slow.get(timeout=TIMEOUT)
    assert [world.row(each.id)["status"] for each in (fine, fails, slow)] == ["completed", "failed", "failed"]
    assert [world.row(each.id)["attempt"] for each in (fine, fails, slow)] == [1, 1, 1]
    assert world.lines(fine, "request") == [" ".join(["of its own"] * 5)]
    for each in (fails, slow):
        # A hard limit is told in both ways, in an order that the pool chooses.
        wait_until(
            lambda each=each: "on_failure" in world.lines(each, "request"),
            message=str(world.lines(each, "request")),
        )
    wait_until(
        lambda: "on_timeout hard" in world.lines(slow, "request"),
        timeout=10,
        message=str(world.lines(slow, "request")),
    )


def test_a_users_own_pool_ends_in_right_rows(own_world: World) -> None:
    own_world.environment["CELERY_CUSTOM_WORKER_POOL"] = "tests.parity.own_pool:OwnPool"
    own_world.worker("-P", "custom")
    add, fail = own_world.task("add"), own_world.task("fail")

    assert (add.s(1, 2) | add.s(3)).delay().get(timeout=TIMEOUT) == 6
    assert own_world.task("retry_until").delay(1).get(timeout=TIMEOUT) == 2
    failed = fail.delay("no")
    with pytest.raises(ValueError, match="no"):
        failed.get(timeout=TIMEOUT)
    assert chord([add.s(1, 1), add.s(2, 2)], own_world.task("total").s()).delay().get(timeout=TIMEOUT) == 6
    own_world.wait_until_no_message()
    assert {row["status"] for row in own_world.rows("type <> 'parity.fail'")} == {"completed"}
    assert own_world.row(failed.id)["status"] == "failed"

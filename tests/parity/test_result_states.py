"""What `AsyncResult` says of a job, as Celery's own backends have it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import chord, states
from celery.exceptions import ChordError, NotRegistered, Reject
from celery.result import AsyncResult

from tests.parity import result_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 30


def result_of(world: World, task_id: str) -> AsyncResult[Any]:
    """Ask anew, as a process that has not sent it."""
    return AsyncResult(task_id, app=world.app)


def test_an_ignored_result_hides_the_state(world: World) -> None:
    by_task = world.task("no_result").delay()
    by_call = world.task("add").apply_async([1, 2], ignore_result=True)
    failed = world.task("fail").apply_async(["hidden"], ignore_result=True)

    world.wait_for_status(by_task.id, "completed")
    world.wait_for_status(by_call.id, "completed")
    world.wait_for_status(failed.id, "failed")
    for each in (by_task, by_call, failed):
        assert (result_of(world, each.id).state, result_of(world, each.id).result) == (states.PENDING, None)


def test_an_ignored_result_hides_that_it_was_revoked_or_expired(own_world: World) -> None:
    """Celery's request stores neither where results are ignored (celery 5.7, worker/request.py, `store_errors`)."""
    revoked = [own_world.task("add").apply_async([1, 2], ignore_result=ignored) for ignored in (True, False)]
    expired = own_world.task("add").apply_async([1, 2], ignore_result=True, expires=0.1)
    for each in revoked:
        each.revoke()
    wait_until(lambda: datetime.now(UTC) > own_world.row(expired.id)["expires_at"])
    own_world.worker("-P", "threads")

    own_world.wait_for_status(expired.id, "expired")
    assert [own_world.row(each.id)["status"] for each in revoked] == ["cancelled"] * 2
    told = [result_of(own_world, each.id).state for each in (*revoked, expired)]
    assert told == [states.PENDING, states.REVOKED, states.PENDING]


def test_what_became_of_a_job_is_told_where_its_task_stores_errors_even_if_ignored(own_world: World) -> None:
    revoked, expired, failed = (
        own_world.task("tells_errors").apply_async([end], **more)
        for end, more in (("done", {}), ("done", {"expires": 0.1}), ("fail", {}))
    )
    revoked.revoke()
    wait_until(lambda: datetime.now(UTC) > own_world.row(expired.id)["expires_at"])
    own_world.worker("-P", "threads")
    done, retries = (own_world.task("tells_errors").delay(end) for end in ("done", "retry"))

    own_world.wait_for_status(expired.id, "expired")
    own_world.wait_for_status(failed.id, "failed")
    own_world.wait_for_status(done.id, "completed")
    own_world.wait_for_status(retries.id, "retrying")
    told = [result_of(own_world, each.id).state for each in (revoked, expired, failed, done, retries)]
    assert told == [states.REVOKED, states.REVOKED, states.FAILURE, states.PENDING, states.RETRY]


def test_an_ignored_result_stays_so_over_a_retry(world: World) -> None:
    result = world.task("quiet_retry").delay()
    world.wait_for_status(result.id, "retrying")
    assert result_of(world, result.id).state == states.PENDING

    world.wait_for_status(result.id, "completed")
    assert result_of(world, result.id).state == states.PENDING


def test_reject_is_a_failure_of_that_class(world: World) -> None:
    result = world.task("rejected").delay()

    with pytest.raises(Reject):
        result.get(timeout=TIMEOUT)
    assert (result.state, world.row(result.id)["status"]) == (states.FAILURE, "failed")


def test_ignore_and_forget_leave_no_state(world: World) -> None:
    ignored = world.task("ignored").delay()
    forgotten = world.task("echo").delay("secret")
    forgotten.get(timeout=TIMEOUT)
    forgotten.forget()

    world.wait_for_status(ignored.id, "completed")
    for each in (ignored, forgotten):
        assert result_of(world, each.id).state == states.PENDING


def test_a_state_that_was_stored_before_ignore_stays_until_somebody_stores_another(world: World) -> None:
    result = world.task("parked").delay()
    world.wait_for_status(result.id, "completed")
    told = result_of(world, result.id)
    assert (told.state, told.info) == ("PARKED", {"until": "later"})

    world.app.backend.store_result(result.id, "picked up", states.SUCCESS)

    assert result_of(world, result.id).get(timeout=TIMEOUT) == "picked up"


@pytest.mark.parametrize("state", [states.STARTED, "WAITS"])
def test_what_is_stored_for_an_id_without_a_job_is_kept(world: World, state: str) -> None:
    task_id = str(uuid.uuid4())

    world.app.backend.store_result(task_id, {"pid": 7}, state)

    assert result_of(world, task_id).state == state
    assert world.rows("task_id = %s", task_id) == []


def test_revoked_without_a_job(world: World) -> None:
    task_id = str(uuid.uuid4())

    world.app.backend.mark_as_revoked(task_id)

    assert result_of(world, task_id).state == states.REVOKED


def test_started_is_told_only_where_it_is_tracked(world: World) -> None:
    plain, told = world.task("hold").delay(), world.task("tracked").delay()
    (hostname,) = wait_until(lambda: world.lines(told, "tracked"), timeout=TIMEOUT)
    wait_until(lambda: world.lines(plain, "hold.pids"), timeout=TIMEOUT)

    assert (result_of(world, plain.id).state, result_of(world, plain.id).info) == (states.PENDING, None)
    started = result_of(world, told.id)
    assert started.state == states.STARTED
    assert started.info["hostname"] == hostname
    assert started.info["pid"] > 1

    world.release(plain)
    world.release(told)
    assert (plain.get(timeout=TIMEOUT), told.get(timeout=TIMEOUT)) == (1, "done")


def test_a_retry_is_told_with_its_error_after_a_state_of_the_tasks_own(world: World) -> None:
    result = world.task("retries_after_state").delay()

    def told() -> bool:
        return result_of(world, result.id).state == states.RETRY

    wait_until(told, timeout=TIMEOUT)
    assert isinstance(result_of(world, result.id).info, ConnectionError)
    assert result.get(timeout=TIMEOUT) == "done"


def test_result_extended(world: World) -> None:
    result = world.task("extended").apply_async([1, "b"], {"c": 3})
    result.get(timeout=TIMEOUT)

    told = result_of(world, result.id)
    assert (told.name, told.args, told.kwargs) == ("parity.extended", [1, "b"], {"c": 3})
    assert (told.retries, told.queue) == (0, "celery")
    assert "@" in told.worker


def test_a_job_is_marked_as_done_with_a_request_that_is_none_of_celerys(world: World) -> None:
    other = str(uuid.uuid4())
    by_worker = world.task("done_by_another").delay(other)
    world.wait_for_status(by_worker.id, "completed")

    assert result_of(world, other).get(timeout=TIMEOUT) == "by another"


def test_a_task_that_no_worker_knows_fails_with_celerys_class(world: World) -> None:
    result = world.app.send_task("parity.nobody_knows_this")

    with pytest.raises(NotRegistered):
        result.get(timeout=TIMEOUT)
    assert world.row(result.id)["type"] == "parity.nobody_knows_this"


def test_who_waits_for_a_chord_is_told_the_exception_of_its_part(world: World) -> None:
    add, fail, total = world.task("add"), world.task("fail"), world.task("total")
    sent = chord([add.s(1, 1), fail.s("part")], total.s()).delay()
    world.wait_for_status(sent.id, "failed")
    assert isinstance(result_of(world, sent.id).result, ChordError)

    # As `get()` does that began to wait before the part had failed, and looks next when the body has, too.
    with pytest.raises(ValueError, match="part"):
        world.app.backend.wait_for(sent.id, on_interval=sent.parent.maybe_throw)


def test_a_later_attempt_that_runs_is_pending(world: World) -> None:
    result = world.task("holds_second").delay()
    wait_until(lambda: len(world.lines(result, "holds_second")) == 2, timeout=TIMEOUT)

    assert result_of(world, result.id).state == states.PENDING
    world.release(result)
    assert result.get(timeout=TIMEOUT) == "done"

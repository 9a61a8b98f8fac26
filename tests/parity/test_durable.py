"""Jobs that sleep, wait and go on: what is recorded is not made again, and no worker is held meanwhile."""

from __future__ import annotations

from typing import Any

import psycopg
from celery import chain, chord

from jobbridge.core.keys import job_id_for
from tests.parity import durable_tasks  # noqa: F401  # its tasks are the app's
from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 60


def sent(world: World, name: str, **data: Any) -> Any:
    return world.app.tasks[f"parity.durable.{name}"].delay(data)


def steps_of(world: World, result: Any) -> list[tuple[str, str]]:
    return [(row["step_name"], row["status"]) for row in world.details(result.id)]


def test_a_job_sleeps_and_goes_on_with_what_it_recorded(world: World) -> None:
    result = sent(world, "sleeps", seconds=2)

    asleep = world.wait_for_status(result.id, "scheduled")
    assert asleep["run_at"] is not None
    assert ("attempt", "scheduled") in steps_of(world, result)
    assert result.get(timeout=TIMEOUT) == {"starts": 2, "first": 1, "second": 1, "attempt": 1}
    row = world.wait_for_status(result.id, "completed")
    assert row["attempt"] == 1
    assert row["completed_at"] > asleep["run_at"]
    assert steps_of(world, result) == [
        ("attempt", "completed"),
        ("first", "completed"),
        ("sleep", "completed"),
        ("second", "completed"),
    ]
    assert (world.lines(result.id, "caught"), len(world.lines(result.id, "finally"))) == ([], 2)


def test_a_job_sleeps_until_a_time_that_it_recorded(world: World) -> None:
    assert sent(world, "until", seconds=2).get(timeout=TIMEOUT) == "late"


def test_an_event_wakes_the_job_that_waits_for_it(world: World) -> None:
    result = sent(world, "waits")
    world.wait_for_status(result.id, "waiting")

    outcome = world.app.send_event("approval", {"by": "Ann"}, job_id=result.id, sent_by="ann@example.com")

    assert outcome == "delivered"
    assert result.get(timeout=TIMEOUT) == [{"by": "Ann"}]
    [step] = [row for row in world.details(result.id) if row["step_name"] == "approval"]
    assert step["metadata"]["sent_by"] == "ann@example.com"
    assert (
        world.looking.rows("SELECT * FROM job_waits WHERE job_id = %s", [world.row(result.id)["job_id"]])
        == []
    )


def test_an_event_that_comes_first_is_kept_and_each_is_delivered_once(world: World) -> None:
    result = sent(world, "waits", first="go", events=2)
    wait_until(lambda: world.lines(result.id, "start"), timeout=TIMEOUT)

    outcomes = [
        world.app.send_event("approval", number, job_id=result.id, once=f"{result.id}/{number}")
        for number in (1, 1, 2)
    ]
    world.release(result)

    assert outcomes == ["kept", "repeated", "kept"]
    assert result.get(timeout=TIMEOUT) == [1, 2]


def test_a_wait_takes_as_long_as_it_may(world: World) -> None:
    result = sent(world, "waits", timeout=1.5)
    assert world.wait_for_status(result.id, "waiting")["run_at"] is not None
    assert result.get(timeout=TIMEOUT) == ["timed out"]


def test_an_event_with_a_key_reaches_who_waits_for_it(world: World) -> None:
    result = sent(world, "waits", key=(key := f"invoice {world.engine}"), timeout=60)
    world.wait_for_status(result.id, "waiting")

    assert world.app.send_event("approval", "yes", key=key) == "delivered"
    assert world.app.send_event("approval", "again", key=key) == "kept"
    assert result.get(timeout=TIMEOUT) == ["yes"]


def test_a_step_has_its_own_tries_and_is_not_made_again_with_the_whole(world: World) -> None:
    result = sent(world, "flaky")

    assert result.get(timeout=TIMEOUT) == {"made": 3, "attempts": 2}
    assert len(world.lines(result.id, "make")) == 3
    assert world.row(result.id)["attempt"] == 2


def test_a_job_calls_others_and_gets_their_results(world: World) -> None:
    result = sent(world, "calls")

    assert result.get(timeout=TIMEOUT) == [2, [3, 4, 5], 7]
    assert len(world.lines(result.id, "adds")) == 4
    children = world.rows("called_by = %s", world.row(result.id)["job_id"])
    assert [child["status"] for child in children] == ["completed"] * 5
    assert world.row(result.id)["attempt"] == 1


def test_the_first_failure_is_raised_when_all_have_ended(world: World) -> None:
    result = sent(world, "calls_failing")

    assert result.get(timeout=TIMEOUT) == "ValueError: no"
    assert sorted(world.lines(result.id, "adds")) == ["1", "3"]


def test_a_called_job_that_is_cancelled_wakes_its_caller(world: World) -> None:
    result = sent(world, "calls_waiting")
    caller = world.wait_for_status(result.id, "waiting")
    [child] = wait_until(lambda: world.rows("called_by = %s AND status = 'waiting'", caller["job_id"]))

    assert world.app.cancel_job(child["job_id"])

    assert "CalledJobEnded" in result.get(timeout=TIMEOUT)


def test_the_called_jobs_are_cancelled_with_their_caller(world: World) -> None:
    result = sent(world, "calls_waiting")
    caller = world.wait_for_status(result.id, "waiting")
    [child] = wait_until(lambda: world.rows("called_by = %s AND status = 'waiting'", caller["job_id"]))

    assert world.app.cancel_job(result.id)

    world.wait_for_status(str(child["job_id"]), "cancelled")
    world.wait_for_status(result.id, "cancelled")
    assert ("attempt", "cancelled") in steps_of(world, result)
    assert world.app.send_event("approval", 1, job_id=child["job_id"]) == "kept"


def test_a_new_job_has_the_new_version_and_a_sleeping_one_the_old(world: World) -> None:
    new, old = sent(world, "versions", is_new=True), sent(world, "versions")

    assert new.get(timeout=TIMEOUT) == [2, 3]
    assert old.get(timeout=TIMEOUT) == [0, 3]


def test_a_handler_that_changed_is_told(world: World) -> None:
    results = {
        "added before the sleep": sent(world, "versions", adds=True),
        "added at the beginning": sent(world, "versions", begins=True),
    }

    for added, result in results.items():
        row = world.wait_for_status(result.id, "failed")
        assert "HandlerChanged" in row["error"]
        assert added in row["error"]
        assert (row["attempt"], world.lines(result.id, "added")) == (1, [])


def test_a_recorded_step_that_was_taken_out_of_the_code_is_told(world: World) -> None:
    result = sent(world, "versions", leaves_out=True)

    assert result.get(timeout=TIMEOUT)[1] == 3
    [told] = wait_until(lambda: [row for row in world.details(result.id) if row["step_name"] == "untaken"])
    assert told["metadata"] == {"calls": ["run:price#1"]}


def test_what_a_failed_job_did_is_undone_the_last_first(world: World) -> None:
    result = sent(world, "saga")

    row = world.wait_for_status(result.id, "failed", timeout=TIMEOUT)
    assert row["error"] == "ValueError: no money"
    assert world.lines(result.id, "undone") == ["all", "car", "hotel", "flight"]
    assert [world.lines(result.id, name) for name in ("flight", "hotel", "car")] == [[""], [""], [""]]
    assert len(world.lines(result.id, "start")) == 2


def test_a_snoozed_job_runs_again_and_counts_no_attempt(world: World) -> None:
    assert sent(world, "snoozes").get(timeout=TIMEOUT) == [3, 1]


def test_a_coroutine_awaits_the_same_calls(world: World) -> None:
    result = sent(world, "awaits")
    world.wait_for_status(result.id, "waiting")
    world.app.send_event("approval", {"yes": True}, job_id=result.id)

    assert result.get(timeout=TIMEOUT) == [1, {"yes": True}, 6, 1, 1]
    assert len(world.lines(result.id, "made")) == 1


def test_any_task_is_durable(world: World) -> None:
    result = world.app.tasks["parity.durable.plain"].delay()

    assert result.get(timeout=TIMEOUT) == [1, "parity.durable.plain", 1]
    assert len(world.lines(result.id, "start")) == 2


def test_a_time_out_and_an_event_at_the_same_moment_make_one_of_the_two(world: World) -> None:
    """The event is sent in a transaction that ends after the time-out: the job waits for it, and takes what it says."""
    committed, rolled_back = (sent(world, "waits", timeout=1.5) for _ in range(2))
    for result in (committed, rolled_back):
        world.wait_for_status(result.id, "waiting")

    with psycopg.connect(world.database_url) as first, psycopg.connect(world.database_url) as second:
        for connection, result in ((first, committed), (second, rolled_back)):
            with world.app.transaction(connection):
                assert world.app.send_event("approval", "just in time", job_id=result.id) == "delivered"
        late = "run_at < clock_timestamp() AND job_id = ANY(%s)"
        ids = [job_id_for(result.id) for result in (committed, rolled_back)]
        wait_until(lambda: len(world.rows(late, ids)) == 2, timeout=TIMEOUT)
        first.commit()
        second.rollback()

    assert committed.get(timeout=TIMEOUT) == ["just in time"]
    assert rolled_back.get(timeout=TIMEOUT) == ["timed out"]


def test_what_follows_from_a_job_waits_until_it_has_slept(world: World) -> None:
    naps, add, total = world.app.tasks["parity.durable.naps"], world.task("add"), world.task("total")

    linked = chain(naps.s(1), naps.s(), add.s(2)).delay()
    counted = chord([naps.s(1), naps.s(2), add.s(1, 1)], total.s()).delay()

    assert (linked.get(timeout=TIMEOUT), counted.get(timeout=TIMEOUT)) == (3, 5)

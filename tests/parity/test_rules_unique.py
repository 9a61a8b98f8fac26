"""`unique`, `throttle` and `debounce`: what makes a job superfluous when it is sent, on both engines."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import group

from jobbridge import DuplicateJob, Outcome
from jobbridge.errors import UnsupportedOption
from tests.parity.conftest import World
from tests.parity.rules_tasks import let_go
from tests.support import wait_until

TIMEOUT = 30


def send(world: World, *args: Any, **options: Any) -> Any:
    return world.task("add").apply_async(args, **options)


def hold(world: World, **options: Any) -> Any:
    result = world.task("hold").apply_async(**options)
    world.wait_for_status(result.id, "processing")
    return result


def test_a_job_of_the_same_arguments_is_made_once_until_it_has_ended(world: World) -> None:
    name = f"go-{uuid.uuid4()}"
    first = world.task("hold").apply_async([name], unique=True)
    same = [
        world.task("hold").apply_async([name], unique=True),
        world.task("hold").apply_async(kwargs={"name": name}, unique=True),
    ]
    other = world.task("hold").apply_async(["go"], unique=True, expires=1)

    assert [each.id for each in same] == [first.id] * 2
    assert [each.job.outcome for each in same] == [Outcome.DEDUPLICATED] * 2
    assert other.job.outcome is Outcome.CREATED
    world.wait_for_status(first.id, "processing")
    assert world.task("hold").apply_async([name], unique={"while": "running"}).id == first.id
    with pytest.raises(DuplicateJob, match=r"unique parity\.hold"):
        world.task("hold").apply_async([name], unique={"policy": "raise"})
    let_go(world, first, name)
    let_go(world, other)
    first.get(timeout=TIMEOUT)
    again = world.task("hold").apply_async([name], unique=True)
    assert again.job.outcome is Outcome.CREATED
    let_go(world, again, name)
    again.get(timeout=TIMEOUT)


def test_while_waiting_a_job_is_unique_until_it_begins(world: World) -> None:
    unique = {"key": str(uuid.uuid4()), "while": "waiting"}
    running = hold(world, unique=unique)

    waiting = send(world, 1, 2, unique=unique, countdown=60)
    assert waiting.job.outcome is Outcome.CREATED
    assert send(world, 1, 2, unique=unique).id == waiting.id
    replacing = send(world, 3, 4, unique={**unique, "policy": "replace"})
    assert replacing.job.outcome is Outcome.REPLACED
    assert replacing.get(timeout=TIMEOUT) == 7
    assert world.row(waiting.id)["status"] == "cancelled"
    let_go(world, running)
    running.get(timeout=TIMEOUT)


def test_for_a_period_a_job_is_unique_also_when_it_has_ended(world: World) -> None:
    key = str(uuid.uuid4())
    first = send(world, 1, 2, throttle={"key": key, "period": 2})
    assert first.get(timeout=TIMEOUT) == 3

    left_out = send(world, 5, 5, throttle={"key": key, "period": 2})
    assert (left_out.id, left_out.get(timeout=TIMEOUT)) == (first.id, 3)
    by_period = send(world, 5, 5, unique={"key": str(uuid.uuid4()), "period": 60})
    assert by_period.job.outcome is Outcome.CREATED

    def again() -> Any:
        result = send(world, 2, 2, throttle={"key": key, "period": 2})
        assert result.job.outcome is Outcome.CREATED
        return result

    assert wait_until(again, timeout=TIMEOUT).get(timeout=TIMEOUT) == 4


def test_of_many_in_a_moment_the_last_one_runs_after_it_was_quiet(world: World) -> None:
    debounce = {"key": str(uuid.uuid4()), "wait": 1}
    sent = [send(world, number, 0, debounce=debounce) for number in range(5)]

    assert [each.job.outcome for each in sent] == [Outcome.CREATED] + [Outcome.REPLACED] * 4
    assert sent[-1].get(timeout=TIMEOUT) == 4
    assert [world.row(each.id)["status"] for each in sent] == ["cancelled"] * 4 + ["completed"]
    row = world.row(sent[-1].id)
    assert (row["started_at"] - row["created_at"]).total_seconds() >= 0.9


def test_many_in_a_row_put_a_job_off_no_longer_than_it_says(world: World) -> None:
    debounce = {"key": str(uuid.uuid4()), "wait": 3600, "max_wait": 4000}
    sent = [send(world, number, 0, debounce=debounce) for number in range(2)]
    ends = {**debounce, "max_wait": 3600}
    last = send(world, 3, 0, debounce=ends)

    rows = [world.row(each.id) for each in (*sent, last)]
    assert [row["status"] for row in rows] == ["cancelled", "cancelled", "scheduled"]
    assert rows[0]["run_at"] < rows[1]["run_at"]  # the second one waits anew
    assert rows[2]["run_at"] < rows[1]["run_at"]  # the third one no longer than from when the first was sent
    world.app.cancel_job(last.id)

    debounce = {"key": str(uuid.uuid4()), "wait": 3, "max_wait": 3}
    first = send(world, 1, 0, debounce=debounce)
    series = [first]

    def goes_on() -> bool:
        series.append(send(world, len(series), 0, debounce=debounce))
        return any(world.row(each.id)["status"] == "completed" for each in series[:-1])

    assert wait_until(goes_on, timeout=TIMEOUT)  # it runs although they never pause
    done = [each for each in series if world.row(each.id)["status"] == "completed"]
    assert world.row(done[0].id)["started_at"] > world.row(first.id)["created_at"]
    world.app.cancel_job(series[-1].id)


def test_a_declared_one_holds_for_retries_and_other_calls(world: World) -> None:
    value = int(datetime.now(UTC).timestamp())
    first = world.task("once").delay(value, note="a")
    second = world.task("once").delay(value, note="b")
    assert second.id == first.id
    assert first.get(timeout=TIMEOUT) == 2  # its own retry is no second one
    assert world.task("once").apply_async([value], unique=False).job.outcome is Outcome.CREATED


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"unique": {"by": ["z"]}}, "unique by 'z', which is no argument"),
        ({"unique": True, "throttle": 5}, "has unique and throttle"),
        ({"unique": True, "singleton_key": "x"}, "singleton_key and unique"),
        ({"throttle": True}, "throttle's period is 'True'"),
        ({"debounce": {"key": "x"}}, "debounce says no time"),
        ({"debounce": {"wait": 5, "max_wait": 1}}, "waits for 0:00:05, and for 0:00:01 at most"),
        ({"unique": {"while": "asleep"}}, "while 'asleep'"),
    ],
)
def test_what_cannot_be_unique_is_refused(world: World, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UnsupportedOption, match=told):
        send(world, 1, 2, **options)


def test_a_group_waits_for_each_of_its_members(world: World) -> None:
    with pytest.raises(UnsupportedOption, match="a group waits for each of its members"):
        group(world.task("add").s(1, 2).set(unique=True)).apply_async()

"""What users of Celery saw of retries, ETAs and time zones. Each test says where they told it, and what is right.

The world's time zone is Asia/Shanghai.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import chord, group
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from tests.parity.conftest import World

TIMEOUT = 30


def task(world: World, name: str) -> Any:
    return world.app.tasks[f"reports.{name}"]


def test_retries_end_at_three_although_they_may_go_on(world: World) -> None:
    """https://github.com/celery/celery/issues/976: `max_retries=None` is without end."""
    result = task(world, "retries").delay(6)

    assert result.get(timeout=TIMEOUT) == 6
    assert world.wait_for_status(result.id, "completed")["attempt"] == 7


def test_autoretry_hides_the_error_or_tries_what_it_should_not(world: World) -> None:
    """https://github.com/celery/celery/issues/5061: the last error itself, and none of `dont_autoretry_for`."""
    always, never = task(world, "retries_itself").delay(), task(world, "retries_itself").delay(expected=True)

    with pytest.raises(ConnectionError, match="always"):
        always.get(timeout=TIMEOUT)
    with pytest.raises(KeyError):
        never.get(timeout=TIMEOUT)
    assert len(world.lines(always, "retries_itself")) == 3
    assert len(world.lines(never, "retries_itself")) == 1


def test_who_catches_that_there_are_no_more_retries_gives_its_own_result(world: World) -> None:
    """https://github.com/celery/celery/issues/5061: `MaxRetriesExceededError` reaches the task's code."""
    assert task(world, "retries_at_most").delay().get(timeout=TIMEOUT) == "gave up"


def test_headers_and_priority_are_lost_on_a_retry(world: World) -> None:
    """https://github.com/celery/celery/issues/4875, 7523, 3017: both attempts have them."""
    options: dict[str, Any] = {"headers": {"tracing": "abc"}, "priority": 7}

    by_task = task(world, "headers").apply_async(**options)
    by_itself = task(world, "retries_itself").apply_async(**options)

    assert by_task.get(timeout=TIMEOUT) == ["abc", 7]
    with pytest.raises(ConnectionError):
        by_itself.get(timeout=TIMEOUT)
    assert world.lines(by_itself, "retries_itself") == ["abc"] * 3


def test_a_retry_runs_at_once_or_hours_later_where_there_is_a_time_zone(world: World) -> None:
    """https://github.com/celery/celery/issues/4221, 4314, 4145: after its countdown."""
    before = datetime.now(UTC)
    result = task(world, "retries").delay(1, countdown=1)

    row = world.wait_for_status(result.id, "retrying")
    assert before + timedelta(seconds=1) <= row["run_at"] < before + timedelta(minutes=1)
    assert result.get(timeout=TIMEOUT) == 1
    assert world.row(result.id)["completed_at"] >= row["run_at"]


@pytest.mark.parametrize("zone", ["America/Phoenix", "Asia/Shanghai", "UTC"])
def test_an_eta_of_another_time_zone_runs_at_another_time(world: World, zone: str) -> None:
    """https://github.com/celery/celery/issues/855, 2306: an aware instant is that instant."""
    eta = datetime.now(ZoneInfo(zone)) + timedelta(hours=3)

    result = task(world, "identity").apply_async([1], eta=eta)

    assert world.wait_for_status(result.id, "scheduled")["run_at"] == eta
    result.revoke()


def test_what_has_expired_runs_since_it_was_retried(world: World) -> None:
    """https://github.com/celery/celery/issues/980, 3297: a retry expires when its task would have."""
    result = task(world, "expires_on_retry").apply_async(expires=1.5)

    row = world.wait_for_status(result.id, "expired")

    assert row["attempt"] == 1
    assert len(world.lines(result, "expires_on_retry")) == 1
    with pytest.raises(TaskRevokedError):
        result.get(timeout=TIMEOUT)


def test_time_limits_of_a_call_are_ignored(world: World) -> None:
    """https://github.com/celery/celery/issues/3174, 802: both are kept."""
    soft = task(world, "sleeps").apply_async([60], soft_time_limit=1, time_limit=30)
    hard = task(world, "sleeps").apply_async([60], time_limit=1)

    with pytest.raises(SoftTimeLimitExceeded):
        soft.get(timeout=TIMEOUT)
    with pytest.raises(TimeLimitExceeded):
        hard.get(timeout=TIMEOUT)


def test_a_countdown_of_a_group_is_ignored(world: World) -> None:
    """https://github.com/celery/celery/issues/7851: each of its tasks has it, in a chord, too."""
    identity = task(world, "identity")
    parts = group(identity.s(1), identity.s(2))
    before = datetime.now(UTC)

    alone, flow = parts.apply_async(countdown=1), chord(parts, identity.s()).apply_async(countdown=1)

    assert (alone.get(timeout=TIMEOUT), flow.get(timeout=TIMEOUT)) == ([1, 2], [1, 2])
    for each in (*alone.results, *flow.parent.results):
        assert world.row(each.id)["started_at"] - before >= timedelta(seconds=1)

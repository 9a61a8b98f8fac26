"""Time limits where they cannot be kept by killing a process, and a handler that has to be killed."""

from __future__ import annotations

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from jobbridge.diagnosis.time_limits import check_time_limits
from tests.parity import feature_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import World


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_limits_are_raised_in_the_thread_that_runs_the_task(own_world: World, pool: str) -> None:
    worker = own_world.worker("-P", pool, "-c", "1")

    told, deaf = own_world.task("busy").delay(), own_world.task("busy").delay(catches=True)

    assert told.get(timeout=15) == "it was told"
    with pytest.raises(TimeLimitExceeded, match="2"):
        deaf.get(timeout=15)
    assert own_world.lines(deaf, "soft") == [""]
    assert own_world.task("add").delay(1, 2).get(timeout=15) == 3, "nothing is left in the thread"
    by_call = own_world.task("spins").apply_async(time_limit=1)
    with pytest.raises(TimeLimitExceeded, match="1"):
        by_call.get(timeout=15)
    soft_later = own_world.task("spins").apply_async(time_limit=1, soft_time_limit=15)
    with pytest.raises(TimeLimitExceeded, match="1"):
        soft_later.get(timeout=12)
    soft = own_world.task("spins").apply_async(soft_time_limit=1)
    with pytest.raises(SoftTimeLimitExceeded, match="1"):
        soft.get(timeout=15)
    assert "hard_limits_not_kept" in worker.log()
    (check,) = check_time_limits(own_world.app)
    assert not check.is_good
    assert "parity.busy" in check.found


def test_limits_of_one_call_hold_whichever_is_the_earlier(own_world: World) -> None:
    own_world.worker("-P", "prefork", "-c", "2")

    soft_later = own_world.task("spins").apply_async(time_limit=1, soft_time_limit=15)
    soft = own_world.task("spins").apply_async(soft_time_limit=1)

    with pytest.raises(TimeLimitExceeded, match="1"):
        soft_later.get(timeout=12)
    with pytest.raises(SoftTimeLimitExceeded):
        soft.get(timeout=12)
    assert own_world.wait_for_status(soft_later.id, "failed")["attempt"] == 1


def test_a_handler_that_is_killed_at_its_hard_limit_is_retried_by_its_policy(own_world: World) -> None:
    own_world.worker("-P", "prefork", "-c", "1")

    result = own_world.task("deaf").delay({})

    assert result.get(timeout=60) == 2
    row = own_world.wait_for_status(result.id, "completed")
    assert row["attempt"] == 2
    assert "TimeLimitExceeded" in str([step["error"] for step in own_world.details(result.id)])
    own_world.wait_until_no_message()

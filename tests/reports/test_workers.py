"""What users of Celery saw of workers that lose something. Each test says where they told it, and what is right."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity.conftest import World
from tests.parity.test_reconnecting import end_sessions
from tests.support import wait_until

TIMEOUT = 30


def task(world: World, name: str) -> Any:
    return world.app.tasks[f"reports.{name}"]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_is_connected_again_and_runs_nothing(own_world: World, pool: str) -> None:
    """https://github.com/celery/celery/issues/8030, 10205, 7800: it runs what was sent before, during and after.

    With threads: https://github.com/the-momentum/open-wearables/issues/1543. What ran meanwhile ran once (issue 4671).
    """
    recycled = [] if pool == "threads" else ["--max-tasks-per-child", "1"]
    own_world.worker("-P", pool, *recycled)
    running = task(own_world, "waits").delay()
    wait_until(lambda: own_world.lines(running, "waits"), timeout=TIMEOUT)

    end_sessions(own_world)
    after = [task(own_world, "identity").delay(each) for each in range(4)]

    assert [each.get(timeout=TIMEOUT) for each in after] == [0, 1, 2, 3]
    own_world.release(running)
    assert running.get(timeout=TIMEOUT) == "waited"
    assert len(own_world.lines(running, "waits")) == 1


def test_a_task_that_takes_longer_than_a_visibility_timeout_runs_again(own_world: World) -> None:
    """https://github.com/celery/kombu/issues/337, celery 2599, 4766, 3270: once, on two workers; ETA or not.

    There is no such timeout here: what is left of Redis' in the settings (a second) changes nothing.
    """
    for _ in range(2):  # neither takes what it cannot run now
        own_world.worker("-P", "threads", "-c", "1", "--prefetch-multiplier", "1")
    running = task(own_world, "waits").delay()
    due = task(own_world, "identity").apply_async([1], countdown=3)

    assert due.get(timeout=TIMEOUT) == 1
    own_world.release(running)
    assert running.get(timeout=TIMEOUT) == "waited"
    own_world.wait_until_no_message()
    assert (own_world.lines(running, "waits"), own_world.lines(due, "identity")) == ([""], ["1"])


def test_a_task_whose_process_was_killed_for_want_of_memory_is_lost(world: World) -> None:
    """https://github.com/celery/celery/issues/1628: it runs again."""
    result = task(world, "killed_once").delay()

    assert result.get(timeout=TIMEOUT) == 2


def test_short_tasks_wait_behind_a_long_one_although_a_process_is_free(world: World) -> None:
    """https://github.com/OasisLMF/OasisPlatform/pull/436: the other process of the pool runs all of them."""
    long = task(world, "waits").delay()
    wait_until(lambda: world.lines(long, "waits"), timeout=TIMEOUT)

    short = [task(world, "identity").delay(each) for each in range(12)]

    assert [each.get(timeout=TIMEOUT) for each in short] == list(range(12))
    world.release(long)
    assert long.get(timeout=TIMEOUT) == "waited"


def test_a_worker_takes_fewer_and_fewer_at_a_time(own_world: World) -> None:
    """https://github.com/celery/celery/issues/8030, 1306: after each odd end it has both of its processes."""
    own_world.worker("-P", "prefork")
    odd: dict[str, tuple[Any, str]] = {
        "hard limit": (task(own_world, "sleeps").s(60).set(time_limit=1), "failed"),
        "soft limit": (task(own_world, "sleeps").s(60).set(soft_time_limit=1, time_limit=30), "failed"),
        "expired on a retry": (task(own_world, "expires_on_retry").s().set(expires=1.5), "expired"),
        "expired": (task(own_world, "identity").s(1).set(expires=-1), "expired"),
        "killed": (task(own_world, "killed_once").s(), "completed"),
        "no serializer": (task(own_world, "returns_impossible").s("deep"), "failed"),
        "no text of a result": (task(own_world, "returns_impossible").s("rude"), "failed"),
        "half a character": (task(own_world, "says").s("surrogate", is_plain=True), "failed"),
        "half a character of a result": (task(own_world, "returns").s("surrogate"), "completed"),
        "NaN": (task(own_world, "returns").s("nan"), "completed"),
        "a group of errors": (task(own_world, "raises").s("base group"), "failed"),
        "no arguments": (task(own_world, "raises").s("generator"), "failed"),
        "recursion": (task(own_world, "recurses").s(), "failed"),
        "no text": (task(own_world, "raises_rude").s(), "failed"),
        "cancelled": (task(own_world, "raises").s("cancelled"), "failed"),
        "ignored": (own_world.task("ignored").s(), "completed"),
        "rejected": (own_world.task("rejected").s(), "failed"),
        "unknown": (own_world.app.signature("reports.nobody"), "failed"),
    }
    takes_two(own_world, "nothing")
    for what, (signature, status) in odd.items():
        own_world.wait_for_status(signature.delay().id, status)
        takes_two(own_world, what)
    revoked = task(own_world, "waits").delay()
    wait_until(lambda: own_world.lines(revoked, "waits"), timeout=TIMEOUT)
    revoked.revoke(terminate=True)
    own_world.wait_for_status(revoked.id, "cancelled")
    takes_two(own_world, "terminated")


def takes_two(world: World, after: str) -> None:
    both = [task(world, "waits").delay() for _ in range(2)]
    for each in both:
        wait_until(
            lambda each=each: world.lines(each, "waits"),
            timeout=15,
            message=f"two run at once, after: {after}",
        )
    for each in both:
        world.release(each)
    assert [each.get(timeout=TIMEOUT) for each in both] == ["waited"] * 2

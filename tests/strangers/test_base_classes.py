"""Tasks of celery-batches, celery-singleton and celery-once, as their users have them, on both engines."""

from __future__ import annotations

from typing import Any

import pytest
from celery import states

from tests.parity.conftest import World
from tests.strangers.app import AlreadyQueued
from tests.support import wait_until

TIMEOUT = 30
pytestmark = pytest.mark.long


def task(world: World, name: str) -> Any:
    return world.app.tasks[f"strangers.{name}"]


def test_celery_batches(world: World) -> None:
    sent = [task(world, "counted").delay(each) for each in ("a", "b", "bad", "d")]

    results = [each.get(timeout=TIMEOUT, propagate=False) for each in sent]

    assert [value for _, value in results[:2]] == ["a", "b"]
    assert results[3][1] == "d"
    # How many come together depends on the engine: Temporal hands a worker no more than its concurrency (2).
    assert all(1 <= number <= 3 for number, _ in (results[0], results[1], results[3]))
    assert sent[2].state == states.FAILURE
    for each, status in zip(sent, ("completed", "completed", "failed", "completed"), strict=True):
        assert world.wait_for_status(each.id, status)["attempt"] == 1


def test_celery_singleton(world: World) -> None:
    only_one = task(world, "only_one")
    first = only_one.delay("x")
    wait_until(lambda: world.lines(first, "only_one"), timeout=TIMEOUT)

    again, other = only_one.delay("x"), only_one.delay("y")

    assert (again.id == first.id, other.id == first.id) == (True, False)
    for each in (first, other):
        world.release(wait_until(lambda each=each: world.lines(each, "only_one") and each, timeout=TIMEOUT))
    assert (again.get(timeout=TIMEOUT), other.get(timeout=TIMEOUT)) == ("x", "y")
    # The lock is free when the hooks have run, which is after the result is there.
    later = wait_until(lambda: (it := only_one.delay("x")).id != first.id and it, timeout=TIMEOUT)
    wait_until(lambda: world.lines(later, "only_one"), timeout=TIMEOUT)
    world.release(later)
    assert later.get(timeout=TIMEOUT) == "x"
    assert len(world.lines(first, "only_one")) == 1


def test_the_lock_of_celery_singleton_is_free_after_a_failure(world: World) -> None:
    only_one_fails = task(world, "only_one_fails")
    first = only_one_fails.delay("x")
    with pytest.raises(ValueError, match="x"):
        first.get(timeout=TIMEOUT)

    assert wait_until(lambda: only_one_fails.delay("x").id != first.id, timeout=TIMEOUT)


def test_celery_once(world: World) -> None:
    once = task(world, "once")
    first = once.delay(1, other="a")
    wait_until(lambda: world.lines(first, "once"), timeout=TIMEOUT)

    with pytest.raises(AlreadyQueued):
        once.delay(1, other="b")
    world.release(first)
    assert first.get(timeout=TIMEOUT) == 1

    def again() -> Any:
        try:
            return once.delay(1)
        except AlreadyQueued:  # its lock goes after its result has come
            return None

    second = wait_until(again, timeout=TIMEOUT)
    wait_until(lambda: world.lines(second, "once"), timeout=TIMEOUT)
    world.release(second)
    assert second.get(timeout=TIMEOUT) == 1


def test_celery_once_that_unlocks_before_it_runs(world: World) -> None:
    once = task(world, "once_gracefully")
    waiting = once.apply_async([1], countdown=2)
    assert once.apply_async([1]).id is None  # what celery-once gives for one that is there

    wait_until(lambda: world.lines(waiting, "once_gracefully"), timeout=TIMEOUT)
    second = once.apply_async([1])

    wait_until(lambda: world.lines(second, "once_gracefully"), timeout=TIMEOUT)
    for each in (waiting, second):
        world.release(each)
    assert (waiting.get(timeout=TIMEOUT), second.get(timeout=TIMEOUT)) == (1, 1)

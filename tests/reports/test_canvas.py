"""What users of Celery saw of chains, groups and chords. Each test says where they told it, and what is right."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, TaskRevokedError

from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 30


def task(world: World, name: str) -> Any:
    return world.app.tasks[f"reports.{name}"]


def called_of(world: World, failed: Any) -> list[str]:
    """Wait until the error callback of what failed has run, and give the states of all that were sent."""

    def states() -> list[str]:
        rows = world.rows("type = 'reports.told' AND parent_id = %s", uuid.UUID(failed.id))
        return [row["status"] for row in rows]

    wait_until(lambda: "completed" in states(), timeout=TIMEOUT)
    return states()


def test_a_chord_whose_part_was_revoked_when_a_worker_had_it_waits_for_ever(world: World) -> None:
    """https://github.com/celery/celery/issues/10526: the body fails with ChordError."""
    part = task(world, "identity").s(1).set(countdown=600)
    result = chord([part, task(world, "identity").s(2)], task(world, "identity").s()).delay()

    result.parent.results[0].revoke()

    world.wait_for_status(result.id, "failed")
    assert isinstance(result.result, ChordError)


def test_a_chord_whose_parts_retried_never_calls_its_body(world: World) -> None:
    """https://github.com/celery/celery/issues/1401: the body gets what the last attempts gave."""
    retries, identity = task(world, "retries"), task(world, "identity")

    result = chord([identity.s(1), retries.s(1), identity.s(2), retries.s(1)], identity.s()).delay()

    assert result.get(timeout=TIMEOUT) == [1, 1, 2, 1]


def test_a_chord_when_results_expire_at_once_blocks_for_ever(world: World) -> None:
    """https://github.com/celery/celery/issues/5237: `result_expires = 0` means never."""
    identity = task(world, "identity")
    assert world.app.conf.result_expires == 0

    result = chord([identity.s(each) for each in range(3)], identity.s()).delay()

    assert result.get(timeout=TIMEOUT) == [0, 1, 2]


def test_a_chord_without_parts_breaks_everything(world: World) -> None:
    """https://github.com/celery/celery/issues/2107: the body is called with an empty list."""
    result = chord([], task(world, "identity").s()).delay()

    assert result.get(timeout=TIMEOUT) == []


def test_a_chord_of_one_part_gives_its_body_no_list(world: World) -> None:
    """https://github.com/celery/celery/issues/3885 and pull 4437: a list of one."""
    identity = task(world, "identity")
    inner = chord([identity.s("b")], identity.s())

    result = chord([chord([identity.s(1), identity.s(2)], identity.s()), inner], identity.s()).delay()

    assert result.get(timeout=TIMEOUT) == [[1, 2], ["b"]]


def test_a_chord_whose_body_is_a_group_with_a_chain_loses_its_results(world: World) -> None:
    """https://github.com/celery/celery/issues/4161: each part of the body gets the list."""
    identity = task(world, "identity")

    result = chord([identity.s(1), identity.s(2)], group(identity.s() | identity.s(), identity.s())).delay()

    assert result.get(timeout=TIMEOUT) == [[1, 2], [1, 2]]


def test_the_tasks_after_groups_in_a_chain_run_many_times(world: World) -> None:
    """https://github.com/celery/celery/issues/3585, 5958 and 8662: each once, and none before those in front of it."""
    identity = task(world, "identity")

    result = chain(
        identity.si("1"),
        group(identity.si("2a"), identity.si("2b")),
        identity.si("3"),
        group(identity.si("4a"), identity.si("4b")),
        identity.si("5"),
    ).delay()

    assert result.get(timeout=TIMEOUT) == "5"
    first = result
    while first.parent is not None:
        first = first.parent
    ran = world.lines(first, "identity")
    assert Counter(ran) == Counter(["1", "2a", "2b", "3", "4a", "4b", "5"])
    assert [each[0] for each in ran] == ["1", "2", "2", "3", "4", "4", "5"]


def test_groups_within_groups_never_complete(world: World) -> None:
    """https://github.com/celery/celery/issues/4681: a group in a chain in a group ends."""
    identity = task(world, "identity")
    inner = identity.si(1) | group([identity.si(2), identity.si(3)]) | identity.si(4)

    result = (group([inner]) | identity.s()).delay()

    assert result.get(timeout=TIMEOUT) == [4]


def test_the_callback_of_a_chord_with_deep_chains_is_not_called(world: World) -> None:
    """https://github.com/celery/celery/issues/5612: it is, with the results in their order."""
    identity, adds = task(world, "identity"), task(world, "adds_chord")
    deep = chain(identity.s([0, 1]), adds.si(2), chord([identity.s(), identity.s()], identity.s()))

    result = chord([deep, identity.s("x")], identity.s()).delay()

    assert result.get(timeout=TIMEOUT) == [[[0, 1], [0, 1]], "x"]


def test_a_chain_gives_no_result_if_a_link_before_ignores_its_own(world: World) -> None:
    """https://github.com/celery/celery/issues/1905 and 1857: the last one's result."""
    result = (task(world, "ignored").s("a") | task(world, "identity").s()).delay()

    assert result.get(timeout=TIMEOUT) == "a"


def test_error_callbacks_are_not_called_when_a_chords_part_fails(world: World) -> None:
    """https://github.com/celery/celery/issues/3317, 3709, 5129: the body's one is, once."""
    identity, fails, told = task(world, "identity"), task(world, "fails"), task(world, "told")
    body = identity.s().on_error(told.s())

    result = chord([chain(fails.si("part"), identity.si(1)), identity.s(2)], body).delay()

    world.wait_for_status(result.id, "failed")
    assert called_of(world, result) == ["completed"]


def test_error_callbacks_are_not_called_when_a_chord_in_a_header_fails(world: World) -> None:
    """https://github.com/celery/celery/issues/9107: the outer body's one is called, and the body does not run."""
    identity, fails, told = task(world, "identity"), task(world, "fails"), task(world, "told")
    inner = chord([fails.si("inner"), identity.si(1)], identity.si("inner body"))

    result = chord([inner, identity.si(2)], identity.si("body").on_error(told.s())).delay()

    assert world.wait_for_status(result.id, "failed")["attempt"] == 0
    assert called_of(world, result) == ["completed"]


def test_the_rest_of_a_chain_is_lost_when_a_task_retries(world: World) -> None:
    """https://github.com/celery/celery/issues/6631, 2759, 6135: it goes on, with what the last attempt gave, once."""
    result = (
        task(world, "identity").s(1) | task(world, "retries_with").s(3) | task(world, "identity").s()
    ).delay()

    assert result.get(timeout=TIMEOUT) == 3
    assert world.lines(result.parent.parent, "identity") == ["1", "3"]


def test_a_canvas_that_is_called_twice_runs_once(world: World) -> None:
    """https://github.com/zenoss/zenoss-prodbin/pull/4312: each call has ids of its own."""
    identity = task(world, "identity")
    flow = group(identity.s(1), identity.s(2)) | identity.s()

    first, second = flow.delay(), flow.delay()

    assert first.id != second.id
    assert [each.get(timeout=TIMEOUT) for each in (first, second)] == [[1, 2], [1, 2]]


def test_a_group_that_a_link_became_is_not_waited_for(world: World) -> None:
    """A chain whose middle replaces itself with a group: the next link gets the group's list (Celery's guide)."""
    result = (task(world, "adds_group").s([1, 2, 3]) | task(world, "identity").s()).delay()

    assert result.get(timeout=TIMEOUT) == [1, 2, 3]


def test_terminating_a_list_of_ids_terminates_nothing(world: World) -> None:
    """https://github.com/celery/celery/issues/1592: both that run are stopped."""
    running = [task(world, "waits").delay() for _ in range(2)]
    for each in running:
        wait_until(lambda each=each: world.lines(each, "waits"), timeout=TIMEOUT)

    world.app.control.revoke([each.id for each in running], terminate=True, signal="SIGKILL")

    for each in running:
        with pytest.raises(TaskRevokedError):
            each.get(timeout=TIMEOUT)
        assert world.wait_for_status(each.id, "cancelled")["attempt"] == 1


def test_a_long_chain_of_chords_is_too_deep(world: World) -> None:
    """https://github.com/celery/celery/issues/5000, 5327: twenty chords in a chain end."""
    identity = task(world, "identity")
    links = [chord([identity.si(each), identity.si(each)], identity.s()) for each in range(20)]

    assert chain(*links).delay().get(timeout=60) == [19, 19]

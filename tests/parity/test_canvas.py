"""Chords: of every shape, with parts that never end, on both engines."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError

from jobbridge.core.keys import TenantId
from tests.parity import canvas_tasks  # noqa: F401  (shared tasks, of every app)
from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 30


def _leaves_nothing(world: World) -> bool:
    with psycopg.connect(world.database_url) as connection:
        return not connection.execute("SELECT chord_id FROM job_chords").fetchall()


def _shapes(world: World) -> dict[str, tuple[Any, Any]]:
    add, body = world.task("add"), world.task("body")
    return {
        "list": (chord([add.s(1, 1), add.s(2, 2)], body.s()), [2, 4]),
        "generator": (chord((add.s(each, 0) for each in range(7)), body.s()), list(range(7))),
        "chain": (chord([add.s(1, 1) | add.s(5), add.s(2, 2)], body.s()), [7, 4]),
        "group at a chain's end": (
            chord([add.s(1, 1) | group(add.s(5), add.s(6)), add.s(2, 2)], body.s()),
            [[7, 8], 4],
        ),
        "chord at a chain's end": (
            chord([add.s(1, 1) | chord([add.s(4), add.s(5)], body.s()), add.s(0, 1)], body.s()),
            [[6, 7], 1],
        ),
        "chord": (chord([chord([add.s(1, 1), add.s(3, 3)], body.s()), add.s(0, 1)], body.s()), [[2, 6], 1]),
        "chord whose body is a group": (
            chord([chord([add.s(1, 1)], group(body.s(), body.s())), add.s(0, 1)], body.s()),
            [[[2], [2]], 1],
        ),
        "grows": (chord([world.task("grows").s(3), add.s(0, 1)], body.s()), [0, 10, 11, 12, 1]),
        "part that becomes a chord": (
            chord([world.task("becomes_chord").s(2), add.s(0, 1)], body.s()),
            [[1, 2], 1],
        ),
        "part that becomes a group": (
            chord([world.task("becomes_group").s(2), add.s(0, 1)], body.s()),
            [[1, 2], 1],
        ),
    }


def test_headers_of_every_shape_run_on_one_process(own_world: World) -> None:
    own_world.worker("-P", "prefork", "-c", "1")

    sent = {name: (flow.delay(), expected) for name, (flow, expected) in _shapes(own_world).items()}

    assert {name: result.get(timeout=TIMEOUT) for name, (result, _) in sent.items()} == {
        name: expected for name, (_, expected) in sent.items()
    }
    wait_until(lambda: _leaves_nothing(own_world))


def test_a_body_that_is_a_group_gets_the_results(world: World) -> None:
    add, body = world.task("add"), world.task("body")

    result = chord([add.s(1, 1), add.s(2, 2)], group(body.s(), body.s())).delay()

    assert result.get(timeout=TIMEOUT) == [[2, 4], [2, 4]]


def test_a_part_of_a_chord_may_be_one_whose_result_is_else_ignored(world: World) -> None:
    result = chord([world.task("no_result").s(), world.task("add").s(1, 1)], world.task("body").s()).delay()

    assert result.get(timeout=TIMEOUT) == ["nobody reads this", 2]


def test_a_nested_chord_that_fails_fails_the_outer_one(world: World) -> None:
    add, body, fail = world.task("add"), world.task("body"), world.task("fail")

    result = chord([chord([add.s(1, 1), fail.s("inner")], body.s()), add.s(1, 2)], body.s()).delay()

    world.wait_for_status(result.id, "failed")
    assert isinstance(result.result, ChordError)
    assert "inner" in str(result.result)


@pytest.mark.parametrize("place", ["part", "link before a part"])
@pytest.mark.parametrize("state", ["waiting", "running"])
def test_a_cancelled_part_fails_the_body(world: World, place: str, state: str) -> None:
    add, body = world.task("add"), world.task("body")
    held = world.task("hold").si().set(task_id=str(uuid.uuid4()))
    if state == "waiting":
        held = held.set(countdown=600)
    flow = held if place == "part" else chain(held, add.si(2, 2))
    result: Any = chord([flow, add.s(1, 1)], body.s()).delay()
    held_id = result.parent.results[0].id if place == "part" else result.parent.results[0].parent.id
    row = wait_until(lambda: world.rows("job_id = %s", uuid.UUID(held_id)))[0]
    if state == "running":
        world.wait_for_status(held_id, "processing")

    assert world.app.cancel_job(row["job_id"])

    failed = world.wait_for_status(result.id, "failed", timeout=10)
    assert (failed["type"], failed["attempt"]) == ("parity.body", 0)
    assert "ChordError" in failed["error"]


def test_a_part_that_no_worker_knows_fails_the_body(world: World) -> None:
    unknown = world.app.signature("parity.unheard_of")

    result = chord([unknown, world.task("add").s(1, 1)], world.task("body").s()).delay()

    world.wait_for_status(result.id, "failed", timeout=10)
    assert isinstance(result.result, ChordError)


def test_a_part_that_expired_fails_the_body(own_world: World) -> None:
    late = own_world.task("add").s(1, 1).set(expires=0.1)
    result = chord([late, own_world.task("add").s(1, 1)], own_world.task("body").s()).delay()
    wait_until(lambda: own_world.rows("expires_at < now()"))

    own_world.worker("-P", "threads")

    own_world.wait_for_status(result.id, "failed", timeout=20)


def test_a_part_of_a_suspended_tenant_fails_the_body(own_world: World) -> None:
    add = own_world.task("add")
    result = chord([add.s(1, 1).set(tenant="gone"), add.s(1, 1)], own_world.task("body").s()).delay()
    own_world.app.tenants.suspend(TenantId("gone"), reason="unpaid")

    own_world.worker("-P", "threads")

    own_world.wait_for_status(result.id, "failed", timeout=20)


def test_error_callbacks_of_a_body_are_called(world: World) -> None:
    body = world.task("body").s()
    body.link_error(world.task("errback").s())
    result = chord([world.task("fail").s("part"), world.task("add").s(1, 1)], body).delay()

    world.wait_for_status(result.id, "failed")
    # Celery gives them a request without a root.
    assert isinstance(result.result, ChordError)


@pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")
def test_of_nested_chords_each_body_that_fails_tells_its_callbacks_once(world: World) -> None:
    one, fail = world.task("one"), world.task("fail")
    inner = chord([one.si(1), fail.si("inner part")], one.si(2))
    outer = chord(group([one.si(3), inner]), one.si(4))
    outer.link_error(world.task("told_of").s())  # which Celery hands to the inner chord's body, too

    result = outer.delay()

    world.wait_for_status(result.id, "failed")
    assert isinstance(world.app.AsyncResult(result.id).result, ChordError)
    assert len(world.lines(None, "told_of")) == 2  # they have no root, for they were never sent


def test_the_error_callback_of_a_chords_body_is_its_child(world: World) -> None:
    add, fail, body = world.task("add"), world.task("fail"), world.task("body")

    result = chord([add.s(1, 2), fail.s("part")], body.s().on_error(world.task("old_style").s())).delay()

    world.wait_for_status(result.id, "failed")
    (called,) = wait_until(lambda: world.app.AsyncResult(result.id).children, timeout=TIMEOUT)
    (callback,) = called.results
    assert callback.get(timeout=TIMEOUT) == result.id


def test_links_of_a_task_are_sent_singly_and_in_groups(world: World) -> None:
    record = world.task("record")

    result = world.task("add").apply_async([1, 2], link=[record.s("a"), group(record.s("b"), record.s("c"))])

    result.get(timeout=TIMEOUT)
    wait_until(lambda: sorted(world.lines(result, "record")) == ["(3, 'a')", "(3, 'b')", "(3, 'c')"])
    rows = world.rows("parent_id = %s", uuid.UUID(result.id))
    assert {row["root_id"] for row in rows} == {uuid.UUID(result.id)}

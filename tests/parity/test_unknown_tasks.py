"""A worker that does not know a task leaves it to those that do."""

from __future__ import annotations

import os
import signal

import pytest
from celery import chain, chord
from celery.exceptions import NotRegistered

from tests.parity.conftest import World
from tests.support import wait_until


def test_a_task_that_another_worker_knows_waits_for_that_one(own_world: World) -> None:
    new = own_world.worker("-c", "1")
    os.kill(new.pid, signal.SIGSTOP)  # it lives, and takes nothing
    old = own_world.starters[own_world.engine]("tests.parity.old_app", "-c", "1", **own_world.environment)
    takes, add, total = (own_world.task(name) for name in ("takes", "add", "total"))
    waits = takes.delay(0)
    single = takes.apply_async([0], singleton_key="one")
    parts = [takes.s(0), add.s(1, 1)]
    in_chord = chord(parts, total.s()).delay()
    in_chain = chain(add.s(1, 1), takes.si(0), add.si(2, 2)).delay()
    unknown = [waits, single, in_chord.parent.results[0], in_chain.parent]
    wait_until(lambda: "not_known_here" in old.log())
    wait_until(lambda: in_chain.parent.parent.state == "SUCCESS")
    wait_until(lambda: {own_world.row(each.id)["status"] for each in unknown} == {"queued"})
    assert takes.apply_async([0], singleton_key="one").id == single.id, "the key is kept while it waits"

    os.kill(new.pid, signal.SIGCONT)

    assert [each.get(timeout=60) for each in (waits, single, in_chord, in_chain)] == [1, 1, 3, 4]
    assert {own_world.wait_for_status(each.id, "completed")["attempt"] for each in unknown} == {1}

    new.stop()
    fails = takes.apply_async([0], singleton_key="one")
    with pytest.raises((NotRegistered, Exception), match=r"parity\.takes"):
        fails.get(timeout=30)
    assert own_world.wait_for_status(fails.id, "failed")["attempt"] == 0
    assert takes.apply_async([0], singleton_key="one").id != fails.id, "the key is free"
    for broken in (chord(parts, total.s()).delay(), chain(add.s(1, 1), takes.si(0), add.si(2, 2)).delay()):
        with pytest.raises(Exception, match=r"parity\.takes"):
            broken.get(timeout=30)

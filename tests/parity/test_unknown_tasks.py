"""A worker that does not know a task leaves it to those that do."""

from __future__ import annotations

import os
import signal

import pytest
from celery.exceptions import NotRegistered

from tests.parity.conftest import World
from tests.support import wait_until


def test_a_task_that_another_worker_knows_waits_for_that_one(own_world: World) -> None:
    new = own_world.worker("-c", "1")
    os.kill(new.pid, signal.SIGSTOP)  # it lives, and takes nothing
    old = own_world.starters[own_world.engine]("tests.parity.old_app", "-c", "1", **own_world.environment)
    waits = own_world.task("takes").delay(0)
    wait_until(lambda: "not_known_here" in old.log())
    assert own_world.row(waits.id)["status"] == "queued"

    os.kill(new.pid, signal.SIGCONT)

    assert waits.get(timeout=60) == 1
    row = own_world.wait_for_status(waits.id, "completed")
    assert row["attempt"] == 1

    new.stop()
    fails = own_world.task("takes").delay(0)
    with pytest.raises((NotRegistered, Exception), match=r"parity\.takes"):
        fails.get(timeout=30)
    assert own_world.wait_for_status(fails.id, "failed")["attempt"] == 0

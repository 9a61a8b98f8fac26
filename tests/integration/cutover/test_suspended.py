"""Jobs that sleep, wait or are held by a rule go to the other engine: each goes on there once, as far as it was."""

from __future__ import annotations

from typing import Any

import pytest

from jobbridge.core.keys import Engine
from tests.integration.cutover.conftest import Sides
from tests.integration.cutover.test_between_engines import THERE_AND_BACK
from tests.support import wait_until

HOUR = 3600.0
ONE = {"limit": 1, "key": "one"}


@pytest.mark.parametrize(("origin", "to"), THERE_AND_BACK, ids=["to temporal", "to celery"])
def test_what_is_suspended_or_held_goes_on_once_on_the_other_side(
    sides: Sides, origin: Engine, to: Engine
) -> None:
    first = sides.worker(origin)
    asleep = sides.send("asleep", origin, "nap", HOUR, concurrency=ONE)
    waits = {name: sides.send(name, origin, "ask") for name in ("asked", "answered", "answered late")}
    calls = sides.send("calls", origin, "call")
    suspended = {asleep: "scheduled", calls: "waiting", **dict.fromkeys(waits.values(), "waiting")}
    for task_id, status in suspended.items():
        sides.wait_for_status(task_id, status)
    [child] = wait_until(lambda: sides.rows("called_by IS NOT NULL AND status = 'waiting'"))
    held = sides.send("held", origin, concurrency=ONE)  # who sleeps has the place
    first.stop()
    assert sides.app.send_event("answer", 1, job_id=waits["answered"]) == "delivered"

    told = sides.moved("--to", str(to))

    assert "Both sides agree" in told
    assert {row["runner_type"] for row in sides.rows()} == {str(to)}
    assert sides.app.send_event("answer", 2, job_id=waits["answered late"]) == "delivered"
    sides.worker(origin)  # it has nothing to do any more
    sides.worker(to)
    assert result(sides, waits["answered"]) == 1
    assert result(sides, waits["answered late"]) == 2
    for task_id in (asleep, calls, waits["asked"]):
        sides.wait_for_status(task_id, suspended[task_id])
    assert (sides.row(held)["started_at"], sides.ran().get("asleep went on")) == (None, None)

    assert sides.app.send_event("answer", 3, job_id=waits["asked"]) == "delivered"
    assert sides.app.send_event("answer", 4, job_id=child["job_id"]) == "delivered"
    wait_until(lambda: sides.app.wake_job(asleep))
    assert result(sides, waits["asked"]) == 3
    assert result(sides, calls) == 4
    assert result(sides, asleep) == "asleep"
    assert result(sides, held) == "held"
    assert sides.row(held)["started_at"] > sides.row(asleep)["completed_at"]
    names = ["asleep", "calls", "calls's child", *waits]
    assert sides.ran() == {"held": 1, **dict.fromkeys([*names, *(f"{each} went on" for each in names)], 1)}
    assert {row["attempt"] for row in sides.rows()} == {1}


def result(sides: Sides, task_id: str) -> Any:
    sides.wait_for_status(task_id, "completed")
    return sides.row(task_id)["result"]

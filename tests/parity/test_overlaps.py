"""A cancelled job of a schedule still runs for a moment: the next one does not start beside it, whatever the policy."""

from __future__ import annotations

from typing import Any

import pytest

from jobbridge.app.schedules.firing import ScheduleFirer
from jobbridge.core.keys import Engine
from jobbridge.core.schedules.policies import Overlap
from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 60


class Fired:
    """The jobs of one schedule that fires each second, and runs what the test lets go."""

    def __init__(self, world: World, overlap: Overlap, when: str = "1 second") -> None:
        self.world, self.overlap = world, overlap
        row = world.app.schedules.create("parity.hold", when, name=overlap.value, overlap=overlap.value)
        self.schedule_id = row.schedule_id

    def jobs(self) -> list[dict[str, Any]]:
        return self.world.rows("metadata -> 'schedule' ->> 'id' = %s", str(self.schedule_id))

    def begun(self) -> list[dict[str, Any]]:
        return [row for row in self.jobs() if self.world.lines(row["task_id"], "hold.pids")]

    def outcomes(self) -> set[str]:
        return {fire.outcome.value for fire in self.world.app.schedules.history(self.overlap.value)}


@pytest.fixture
def fires(own_world: World) -> Any:
    """Wait, and let beat do its work meanwhile; on Temporal the server does it."""
    firer = ScheduleFirer(own_world.app)

    def wait(condition: Any, message: str) -> Any:
        def fired() -> Any:
            if own_world.engine is Engine.CELERY:
                firer.fire_due()
            return condition()

        return wait_until(fired, timeout=TIMEOUT, message=message)

    return wait


def test_the_next_job_of_a_schedule_waits_until_the_cancelled_one_has_stopped(
    own_world: World, fires: Any
) -> None:
    worker = own_world.worker("-P", "threads", "-c", "8")
    schedules = [Fired(own_world, each) for each in (Overlap.SKIP, Overlap.BUFFER_ONE, Overlap.CANCEL_OTHER)]
    own_world.app.schedules.create("parity.echo", "1 second", {"value": 1}, name="clock", overlap="allow")
    firsts = {each.overlap: fires(each.begun, each.overlap)[0] for each in schedules}

    for each in schedules[:2]:  # the third's next fire does it
        assert own_world.app.cancel_job(firsts[each.overlap]["job_id"])  # nothing stops a thread
    for first in firsts.values():
        fires(lambda job=first: own_world.row(job["task_id"])["status"] == "cancelled", "all are cancelled")
    so_far = len(own_world.rows("type = 'parity.echo'"))
    fires(lambda: len(own_world.rows("type = 'parity.echo'")) > so_far + 3, "further fires are due")

    for each in schedules:
        assert [row["job_id"] for row in each.begun()] == [firsts[each.overlap]["job_id"]], each.overlap
    if own_world.engine is Engine.CELERY:
        assert schedules[0].outcomes() == {"enqueued", "skipped"}
        assert schedules[2].outcomes() >= {"enqueued", "buffered"}
    for first in firsts.values():
        own_world.release(first["task_id"])
    for each in schedules:
        fires(lambda each=each: len(each.begun()) == 2, f"{each.overlap} goes on")

    second = schedules[0].begun()[1]
    assert own_world.app.cancel_job(second["job_id"])
    worker.kill()  # nobody can tell any more that it has stopped
    own_world.worker("-P", "threads", "-c", "8")
    fires(lambda: len(schedules[0].begun()) == 3, "a dead worker's job has stopped")


def test_what_was_started_by_hand_counts_as_an_earlier_job(own_world: World, fires: Any) -> None:
    own_world.worker("-P", "threads", "-c", "8")
    # None fires by itself before it is paused.
    overlaps = (Overlap.BUFFER_ONE, Overlap.CANCEL_OTHER)
    schedules = [Fired(own_world, each, "24 hours") for each in overlaps]
    app = own_world.app.schedules
    for each in schedules:
        app.pause(each.overlap.value)
    firsts = {each.overlap: str(app.run_now(each.overlap.value)) for each in schedules}
    for each in schedules:
        fires(lambda job=firsts[each.overlap]: own_world.lines(job, "hold.pids"), "it runs")
    app.create("parity.echo", "1 second", {"value": 1}, name="clock", overlap="allow")

    for each in schedules:
        app.update(each.overlap.value, when="1 second")
        app.resume(each.overlap.value)
    fires(lambda: own_world.row(firsts[Overlap.CANCEL_OTHER])["status"] == "cancelled", "it is cancelled")
    so_far = len(own_world.rows("type = 'parity.echo'"))
    fires(lambda: len(own_world.rows("type = 'parity.echo'")) > so_far + 3, "further fires are due")

    for each in schedules:
        assert [str(row["job_id"]) for row in each.begun()] == [firsts[each.overlap]], each.overlap
    for first in firsts.values():
        own_world.release(first)
    for each in schedules:
        fires(lambda each=each: len(each.begun()) == 2, f"{each.overlap} goes on")
    assert own_world.row(firsts[Overlap.BUFFER_ONE])["status"] == "completed"

"""What is left of a fan-out behind our back is found by the next look: on both engines.

The looks are some twenty seconds apart: these tests wait beside each other, each in a world of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from jobbridge.core import fanout
from jobbridge.core.events import Cancelled
from jobbridge.core.keys import Engine, JobKey
from jobbridge.recording import JobRecorder
from tests.beside import Outcomes
from tests.parity.conftest import World, had_in_worlds
from tests.parity.test_fan_out import row_key, send
from tests.support import wait_until


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, id=each, marks=pytest.mark.xdist_group(f"fan-out-leftovers-{each}"))
        for each in Engine
    ],
)
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param)


@pytest.fixture(scope="module")
def looked_for(request: pytest.FixtureRequest, engine: Engine) -> Outcomes[Callable[[World], None]]:
    def have(world: World, story: Callable[[World], None]) -> None:
        world.worker("-P", "prefork", "-c", "4")
        story(world)

    return had_in_worlds(request, engine, (_undone, _cancelled_past_us, _rows_gone), have)


def test_what_a_dead_process_left_undone_is_done(looked_for: Outcomes[Any]) -> None:
    """A child's end was written, and whoever wrote it died before the next step."""
    looked_for.of(_undone)


def _undone(world: World) -> None:
    result = send(world, children=3, concurrency=1, each={"holds": [0]})
    key = _row_key_when_it_waits(world, result)
    lonely = JobRecorder(world.app.database)  # tells nobody that a child has ended

    lonely.record(Cancelled(key=JobKey(tenant=key.tenant, job_id=fanout.child_id(key, "0"))))
    world.release(result)

    row = world.wait_for_status(str(result), "failed", timeout=150)
    assert (row["metadata"]["fan_out"]["completed"], row["metadata"]["fan_out"]["cancelled"]) == (2, 1)


def test_a_parent_that_was_cancelled_past_us_takes_its_children_along(looked_for: Outcomes[Any]) -> None:
    looked_for.of(_cancelled_past_us)


def _cancelled_past_us(world: World) -> None:
    result = send(world, children=4, concurrency=2, each={"holds": [0, 1, 2, 3]})
    key = _row_key_when_it_waits(world, result)

    JobRecorder(world.app.database).record(Cancelled(key=key, cancelled_by="sql"))

    wait_until(lambda: world.app.fan_outs.counts(key).cancelled == 4, timeout=150)
    world.release(result)


def test_children_whose_rows_are_gone_do_not_hold_up_their_parent(looked_for: Outcomes[Any]) -> None:
    looked_for.of(_rows_gone)


def _rows_gone(world: World) -> None:
    result = send(world, children=2, concurrency=1, each={"holds": [0]})
    key = _row_key_when_it_waits(world, result)
    with psycopg.connect(world.database_url) as connection:
        connection.execute("DELETE FROM jobs WHERE job_id = %s", [fanout.child_id(key, "0")])
        connection.execute("UPDATE job_families SET updated_at = now() - interval '1 hour'")

    row = world.wait_for_status(str(result), "failed", timeout=150)

    assert (row["metadata"]["fan_out"]["completed"], row["metadata"]["fan_out"]["cancelled"]) == (1, 1)
    world.release(result)


def _row_key_when_it_waits(world: World, result: Any) -> JobKey:
    wait_until(lambda: "0" in world.lines(result, "children"))
    return row_key(world, result)

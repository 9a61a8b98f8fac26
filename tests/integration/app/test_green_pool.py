"""`celery worker -P gevent`: tasks of which each waits share one process."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from celery import chord
from celery.exceptions import TaskRevokedError

from jobbridge.core.keys import Engine
from jobbridge.dev.postgres import PostgresServer
from tests.parity import canvas_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import World, make_world
from tests.parity.test_stopping import ends_although_the_database_is_silent
from tests.support import wait_until

TIMEOUT = 30


@pytest.fixture
def world(database_url: str, tmp_path: Path, task_queue: str, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    from contextlib import ExitStack

    with ExitStack() as started:
        yield make_world(Engine.CELERY, database_url, tmp_path, task_queue, request, started)


def test_many_that_wait_run_at_a_time_and_all_ends_are_right(world: World) -> None:
    world.worker("-P", "gevent", "-c", "20")
    holding = [world.task("hold").delay() for _ in range(15)]
    for each in holding:
        wait_until(lambda each=each: world.lines(each, "hold.pids"), timeout=TIMEOUT)

    assert world.task("add").delay(1, 2).get(timeout=TIMEOUT) == 3
    assert world.task("retry_until").delay(2).get(timeout=TIMEOUT) == 3
    assert chord([world.task("add").s(1, 1), world.task("add").s(2, 2)], world.task("body").s()).delay().get(
        timeout=TIMEOUT
    ) == [2, 4]
    with pytest.raises(ValueError, match="no"):
        world.task("fail").delay("no").get(timeout=TIMEOUT)
    revoked = world.task("add").apply_async([1, 1], countdown=1)
    revoked.revoke()
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=TIMEOUT)

    for each in holding:
        world.release(each)
    assert [each.get(timeout=TIMEOUT) for each in holding] == [1] * 15
    world.wait_until_no_message()
    assert {row["attempt"] for row in world.rows("type = 'parity.hold'")} == {1}


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_ends_it_although_the_database_is_silent(
    world: World, told: signal.Signals, postgres: PostgresServer
) -> None:
    ends_although_the_database_is_silent(world, "gevent", told, postgres, claims=True)

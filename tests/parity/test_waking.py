"""A job that sleeps is woken before its time: by Python, a command, the API and its page; each is on record."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from jobbridge.cli import jobs as jobs_command
from jobbridge.cli.root import run
from jobbridge.core.access import Role
from jobbridge.runners.factory import JobRunnerFactory
from tests.parity import durable_tasks, waiting_tasks  # noqa: F401  # their tasks are the app's
from tests.parity.conftest import World
from tests.parity.test_events import HTML, actions_on, client_of
from tests.support import wait_until

TIMEOUT = 60
DAY = 86_400


def asleep(world: World, **data: Any) -> Any:
    """Send a job that sleeps for a day, and wait until it does."""
    result = world.app.tasks["parity.durable.sleeps"].delay({"seconds": DAY, **data})
    row = world.wait_for_status(result.id, "scheduled")
    assert row["run_at"] is not None
    return result


def has_gone_on(world: World, result: Any) -> None:
    assert result.get(timeout=TIMEOUT) == {"starts": 2, "first": 1, "second": 1, "attempt": 1}
    assert world.row(result.id)["attempt"] == 1
    [sleep] = [row for row in world.details(result.id) if row["step_name"] == "sleep"]
    assert sleep["status"] == "completed"
    assert sleep["metadata"]["until"] < sleep["metadata"]["planned_until"]


def test_a_sleeping_job_is_woken_once(world: World) -> None:
    result = asleep(world)

    assert world.app.wake_job(result.id, woken_by="Ada")
    has_gone_on(world, result)
    assert not world.app.wake_job(result.id)
    [sleep] = [row for row in world.details(result.id) if row["step_name"] == "sleep"]
    assert sleep["metadata"]["woken_by"] == "Ada"


def test_the_second_of_two_who_wake_it_is_told(world: World) -> None:
    result = asleep(world)

    with psycopg.connect(world.database_url) as connection:
        with world.app.transaction(connection):
            assert world.app.wake_job(result.id)
            assert not world.app.wake_job(result.id)
        assert world.row(result.id)["status"] == "scheduled"  # as long as that is not committed
        connection.commit()
    has_gone_on(world, result)


def test_a_transaction_that_is_rolled_back_wakes_nobody(world: World) -> None:
    result = asleep(world)

    with psycopg.connect(world.database_url) as connection:
        with world.app.transaction(connection):
            assert world.app.wake_job(result.id)
        connection.rollback()

    assert world.row(result.id)["status"] == "scheduled"
    assert JobRunnerFactory(world.app).get_runner(world.engine).wake_job(result.id)
    has_gone_on(world, result)


def test_who_does_not_sleep_is_not_woken(world: World) -> None:
    later = world.task("add").apply_async([1, 2], countdown=DAY)
    waiting = world.app.tasks["parity.durable.waits"].delay({})
    done = world.task("add").delay(1, 2)
    world.wait_for_status(waiting.id, "waiting")
    done.get(timeout=TIMEOUT)

    assert [world.app.wake_job(each.id) for each in (later, waiting, done)] == [False] * 3
    assert [world.row(each.id)["status"] for each in (later, waiting)] == ["scheduled", "waiting"]
    for each in (later, waiting):
        world.app.cancel_job(each.id)


def test_a_snoozed_job_is_woken(world: World) -> None:
    result = world.app.tasks["parity.durable.snoozes"].delay({"seconds": DAY})
    world.wait_for_status(result.id, "scheduled")

    assert world.app.wake_job(result.id)
    wait_until(lambda: len(world.lines(result.id, "start")) == 2, timeout=TIMEOUT)
    world.wait_for_status(result.id, "scheduled")
    assert world.app.wake_job(result.id)
    assert result.get(timeout=TIMEOUT) == [3, 1]


def test_a_command_wakes_a_job_on_record(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs_command, "load_app", lambda name: world.app)
    result = asleep(world)

    assert run(["jobs", "wake", result.id, "--by", "Ada", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["job_id"], told["woken"]) == (result.id, True)
    has_gone_on(world, result)
    assert run(["jobs", "wake", result.id]) == 5
    assert "is completed, and does not sleep" in capsys.readouterr().err
    told_of = [(action, outcome) for action, outcome, _ in actions_on(world, result.id)]
    assert told_of == [("wake", "done"), ("wake", "does not sleep")]


def test_the_api_and_the_page_wake_a_job_on_record(world: World) -> None:
    operator, viewer = client_of(world, Role.OPERATOR), client_of(world, Role.VIEWER)
    first, second = asleep(world), asleep(world)

    assert viewer.post(f"/api/v1/jobs/{first.id}/wake").status_code == 403
    assert operator.post(f"/api/v1/jobs/{first.id}/wake").json()["woken"] is True
    has_gone_on(world, first)
    assert operator.post(f"/api/v1/jobs/{first.id}/wake").json()["woken"] is False

    page = operator.get(f"/jobs/{second.id}", headers=HTML).text
    assert "Wake now" in page
    assert "Wake now" not in viewer.get(f"/jobs/{second.id}", headers=HTML).text
    assert operator.post(f"/jobs/{second.id}/wake").status_code == 303
    has_gone_on(world, second)
    assert [outcome for _, outcome, _ in actions_on(world, second.id)] == ["done"]

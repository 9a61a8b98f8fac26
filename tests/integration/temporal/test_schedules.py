"""Schedules that Temporal fires: what a fire writes, and what is no fire."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest

from jobbridge.core.keys import SYSTEM_TENANT, Engine
from jobbridge.core.schedules.policies import fire_job_id
from jobbridge.temporal.schedules import temporal_id
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.support import wait_until


class Schedules:
    """Schedules of one test, deleted at its end."""

    def __init__(self, world: TemporalWorld) -> None:
        self.world = world
        self.name = f"s-{uuid.uuid4().hex[:8]}"

    def create(self, when: Any, **options: Any) -> UUID:
        task, data = options.pop("task", "temporal.echo"), options.pop("data", {"word": "hello"})
        created = self.world.app.schedules.create(
            task, when, data, name=self.name, engine=Engine.TEMPORAL, **options
        )
        return UUID(str(created.schedule_id))

    def create_and_wait(self, when: Any, **options: Any) -> UUID:
        """Return when Temporal has it."""
        schedule_id = self.create(when, **options)
        wait_until(lambda: self.row.mirrored_version == self.row.version, timeout=TIMEOUT)
        return schedule_id

    @property
    def row(self) -> Any:
        return self.world.app.schedules.find(self.name)

    def history(self) -> list[Any]:
        return list(self.world.app.schedules.history(self.name))

    def trigger(self) -> None:
        """As an operator does, past us."""
        temporal = temporal_id(self.world.app, self.row.schedule_id)
        self.world.temporal.run_cli("schedule", "trigger", "--schedule-id", temporal)

    def delete(self) -> None:
        for row in self.world.app.schedules.store.find(self.name):
            self.world.app.schedules.delete(self.name)
            wait_until(lambda row=row: self.is_forgotten(row.schedule_id), timeout=TIMEOUT)

    def is_forgotten(self, schedule_id: UUID) -> bool:
        with psycopg.connect(self.world.environment["DATABASE_URL"]) as connection:
            query = "SELECT mirrored_version FROM job_schedules WHERE schedule_id = %s"
            return connection.execute(query, [schedule_id]).fetchone() == (None,)


@pytest.fixture
def schedules(world: TemporalWorld) -> Iterator[Schedules]:
    made = Schedules(world)
    yield made
    made.delete()


def test_each_fire_makes_the_job_whose_id_follows_from_its_instant(
    world: TemporalWorld, schedules: Schedules
) -> None:
    schedule_id = schedules.create("2 seconds", metadata={"why": "test"}, tenant="acme", queue="other")

    wait_until(lambda: len(schedules.history()) >= 2, timeout=TIMEOUT)
    world.app.schedules.pause(schedules.name, note="enough")

    fires = schedules.history()
    assert {(fire.trigger, fire.outcome) for fire in fires} == {("schedule", "enqueued")}
    for fire in fires:
        assert (fire.fire_at.second % 2, fire.fire_at.microsecond) == (0, 0)
        assert fire.job_id == fire_job_id("acme", schedule_id, fire.fire_at)  # type: ignore[arg-type]
        row = world.wait_for_status(fire.job_id, "completed")
        assert (row["runner_type"], row["attempt"], row["queue"]) == ("temporal", 1, "other")
        assert row["result"] == {"data": {"word": "hello"}, "tenant": "acme"}
        assert row["metadata"]["why"] == "test"
        assert row["metadata"]["schedule"]["name"] == schedules.name
        assert row["external_id"].startswith(f"schedule-{schedule_id}-")
        assert world.result(row["external_id"])["jobId"] == str(fire.job_id)
    newest = fires[0]
    assert (schedules.row.last_fire_at, schedules.row.last_job_id) == (newest.fire_at, newest.job_id)
    assert schedules.row.next_fire_at == newest.fire_at + timedelta(seconds=2)


def test_a_fire_that_fails_is_retried_and_cancelled_as_any_job(
    world: TemporalWorld, schedules: Schedules
) -> None:
    schedules.create_and_wait("3650 days", task="parity.fails_twice", data={})
    schedules.trigger()

    [fire] = wait_until(schedules.history, timeout=TIMEOUT)
    assert world.wait_for_status(fire.job_id, "completed")["attempt"] == 3
    schedules.create_and_wait("3650 days", task="parity.long", data={})
    schedules.trigger()
    running = wait_until(lambda: schedules.history()[:-1], timeout=TIMEOUT)[0].job_id
    world.wait_for_start(running, "long.started")

    assert world.app.cancel_job(running, SYSTEM_TENANT, reason="enough")

    assert world.wait_for_status(running, "cancelled")["cancel_reason"] == "enough"


def test_what_an_operator_triggers_in_temporal_is_a_manual_run(
    world: TemporalWorld, schedules: Schedules
) -> None:
    schedule_id = schedules.create_and_wait("0 1 * * *")
    world.app.schedules.pause(schedules.name)
    wait_until(lambda: schedules.row.mirrored_version == schedules.row.version, timeout=TIMEOUT)

    schedules.trigger()

    [fire] = wait_until(schedules.history, timeout=TIMEOUT)
    assert (fire.trigger, fire.outcome) == ("manual", "enqueued")
    assert abs(fire.fire_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert fire.job_id == fire_job_id(SYSTEM_TENANT, schedule_id, fire.fire_at)
    assert world.wait_for_status(fire.job_id, "completed")


def test_run_now_and_backfill_make_jobs_that_temporal_runs(
    world: TemporalWorld, schedules: Schedules
) -> None:
    schedules.create("0 1 * * *")
    now = world.app.schedules.run_now(schedules.name)
    start = datetime(2026, 3, 1, tzinfo=UTC)

    made = world.app.schedules.backfill(schedules.name, start, start + timedelta(days=2))

    assert [instant.hour for instant in made] == [1, 1]
    fires = {fire.job_id: fire.trigger for fire in schedules.history()}
    assert sorted(fires.values()) == ["backfill", "backfill", "manual"]
    assert fires[now] == "manual"
    for job_id in fires:
        assert world.wait_for_status(job_id, "completed")["runner_type"] == "temporal"


def test_fires_that_overlap_are_skipped_and_noted(world: TemporalWorld, schedules: Schedules) -> None:
    schedules.create("1 second", task="temporal.takes", data={"seconds": 3.2})

    wait_until(lambda: sum(fire.outcome == "enqueued" for fire in schedules.history()) >= 2, timeout=TIMEOUT)

    second, *between, first = schedules.history()
    assert second.outcome == first.outcome == "enqueued"
    assert {(fire.outcome, fire.reason) for fire in between} == {("skipped", "an earlier job has not ended")}
    instants = [fire.fire_at for fire in reversed(schedules.history())]
    steps = {later - earlier for earlier, later in pairwise(instants)}
    assert steps == {timedelta(seconds=1)}


def test_a_fire_that_another_scheduler_made_is_not_made_twice(
    world: TemporalWorld, schedules: Schedules
) -> None:
    schedule_id = schedules.create("2 seconds")
    start = datetime.now(UTC)
    taken = world.app.schedules.backfill(schedules.name, start, start + timedelta(seconds=8))

    wait_until(lambda: schedules.row.next_fire_at > taken[-1], timeout=TIMEOUT)

    fires = {fire.fire_at: fire for fire in schedules.history()}
    assert {fires[instant].trigger for instant in taken} == {"backfill"}
    for instant in taken:
        job_id = fire_job_id(SYSTEM_TENANT, schedule_id, instant)
        assert world.wait_for_status(job_id, "completed")["attempt"] == 1
        workflow = f"schedule-{schedule_id}-{instant:%Y-%m-%dT%H:%M:%SZ}"
        world.wait_for_closed(workflow, "COMPLETED")
        assert world.result(workflow)["error"] == "skipped: another scheduler fired it"


def test_trouble_with_the_books_does_not_stop_a_run(own_world: TemporalWorld) -> None:
    schedules = Schedules(own_world)
    own_world.worker("-P", "threads")
    schedules.create_and_wait("3650 days")
    schedule_id = schedules.row.schedule_id
    with psycopg.connect(own_world.environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("ALTER TABLE job_schedule_fires RENAME TO away")
        schedules.trigger()
        [row] = wait_until(lambda: own_world.rows("status = 'completed'"), timeout=TIMEOUT)
        connection.execute("ALTER TABLE away RENAME TO job_schedule_fires")

    assert row["result"]["data"] == {"word": "hello"}
    assert row["external_id"].startswith(f"schedule-{schedule_id}-")
    assert row["task_id"] == own_world.result(row["external_id"])["jobId"]
    schedules.delete()

"""Schedules that Temporal fires: what a fire writes, and what is no fire."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest

from jobbridge.app.schedules.firing import ScheduleFirer
from jobbridge.core.keys import SYSTEM_TENANT, Engine
from jobbridge.core.schedules.fires import fires_between
from jobbridge.core.schedules.policies import fire_job_id
from jobbridge.temporal.schedules.mirror import temporal_id
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.support import wait_until

MANY = int(os.environ.get("SCHEDULES", "8"))
DURATION = timedelta(seconds=float(os.environ.get("SCHEDULE_SECONDS", "5")))


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


def test_what_was_due_before_temporal_knew_of_it_is_made_up_for(own_world: TemporalWorld) -> None:
    schedules = Schedules(own_world)
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    schedules.create(soon)  # and nobody is there to tell Temporal
    wait_until(lambda: datetime.now(UTC) > soon + timedelta(seconds=1))

    own_world.worker("-P", "threads")

    [fire] = wait_until(schedules.history, timeout=TIMEOUT)
    assert (fire.fire_at, fire.trigger, fire.outcome) == (soon, "schedule", "enqueued")
    assert own_world.wait_for_status(fire.job_id, "completed")
    schedules.delete()


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

    fires = schedules.history()
    # What fell before Temporal knew the schedule is made up for after that, and so may be noted as skipped, too.
    second, first = [number for number, fire in enumerate(fires) if fire.outcome == "enqueued"][-2:]
    between = fires[second + 1 : first]
    assert {(fire.outcome, fire.reason) for fire in between} == {("skipped", "an earlier job has not ended")}
    instants = [fire.fire_at for fire in reversed(fires)]
    steps = {later - earlier for earlier, later in pairwise(instants)}
    assert steps == {timedelta(seconds=1)}


def test_a_fire_that_waits_runs_when_the_earlier_job_has_ended(
    world: TemporalWorld, schedules: Schedules
) -> None:
    schedules.create("1 second", task="temporal.takes", data={"seconds": 2.3}, overlap="buffer_one")

    def ended() -> list[tuple[datetime, dict[str, Any]]]:
        """The fires that have run to their end, as they began."""
        fires = [(fire.fire_at, world.row(fire.job_id)) for fire in schedules.history() if fire.job_id]
        return sorted(
            (each for each in fires if each[1]["completed_at"]), key=lambda each: each[1]["started_at"]
        )

    wait_until(lambda: len(ended()) >= 2, timeout=TIMEOUT)
    world.app.schedules.pause(schedules.name)
    # The later instant may be the first to run: what fell before Temporal knew the schedule is made up for after that.
    (_, first), (fire_at, second) = ended()[:2]
    assert second["started_at"] >= first["completed_at"]
    assert second["started_at"] - fire_at > timedelta(seconds=1)  # it had waited, and was not skipped


def test_a_fire_cancels_the_job_before_if_its_schedule_says_so(
    world: TemporalWorld, schedules: Schedules
) -> None:
    schedules.create("3 seconds", task="parity.long", data={}, overlap="cancel_other")

    wait_until(lambda: len(schedules.history()) >= 2, timeout=TIMEOUT)
    world.app.schedules.pause(schedules.name)

    *later, first = schedules.history()
    world.wait_for_status(first.job_id, "cancelled")
    assert world.lines(first.job_id, "long.finished") == []
    for fire in later:
        world.app.cancel_job(fire.job_id, SYSTEM_TENANT)
        world.wait_for_status(fire.job_id, "cancelled")


def test_a_schedule_that_moves_between_engines_fires_each_instant_once(
    world: TemporalWorld, schedules: Schedules
) -> None:
    schedules.create("1 second", overlap="allow")
    firer = ScheduleFirer(world.app)
    wait_until(lambda: len(schedules.history()) >= 2, timeout=TIMEOUT)
    for engine in (Engine.CELERY, Engine.TEMPORAL):
        world.app.schedules.update(schedules.name, engine=engine)
        known = len(schedules.history())
        wait_until(
            lambda known=known: firer.fire_due() is not None and len(schedules.history()) >= known + 3,
            timeout=TIMEOUT,
        )
    world.app.schedules.pause(schedules.name)

    fires = [fire for fire in schedules.history() if fire.job_id]
    assert len({fire.fire_at for fire in fires}) == len(fires)
    ids = [fire.job_id for fire in fires]
    rows = world.rows("metadata->'schedule'->>'name' = %s", schedules.name)
    assert sorted(row["job_id"] for row in rows) == sorted(ids)
    assert {row["runner_type"] for row in rows} == {"celery", "temporal"}
    for row in rows:
        if row["runner_type"] == Engine.TEMPORAL:
            assert world.wait_for_status(row["job_id"], "completed")["attempt"] == 1


def test_many_schedules_agree_with_their_history(world: TemporalWorld) -> None:
    """`SCHEDULES=50 SCHEDULE_SECONDS=30 pytest -k many_schedules` is the long run."""
    many = [Schedules(world) for _ in range(MANY)]
    for each in many:
        each.create("2 seconds", overlap="allow")
    wait_until(lambda: all(each.history() for each in many), timeout=TIMEOUT * 3, every=0.5)
    start = datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC) > start + DURATION, timeout=TIMEOUT * 3)
    for each in many:
        world.app.schedules.pause(each.name)
    for each in many:
        wait_until(lambda each=each: each.row.mirrored_version == each.row.version, timeout=TIMEOUT * 3)
    workflows = wait_until(lambda: running_and_ended(world, many), timeout=TIMEOUT * 3, every=0.5)

    for each in many:
        fires = each.history()
        instants = [fire.fire_at for fire in reversed(fires)]
        every = each.row.parsed
        assert instants == list(fires_between(every, ZoneInfo("UTC"), instants[0], instants[-1]))
        made = [fire for fire in fires if fire.job_id]
        assert {fire.outcome for fire in made} == {"enqueued"}
        # What Temporal had started, and no worker had begun when it was paused.
        late = [fire for fire in fires if not fire.job_id]
        assert {(fire.outcome, fire.reason) for fire in late} <= {("skipped", "the schedule is paused")}
        rows = world.rows("metadata->'schedule'->>'name' = %s", each.name)
        assert {row["job_id"] for row in rows} == {fire.job_id for fire in made}
        assert {(row["status"], row["attempt"]) for row in rows} == {("completed", 1)}
        assert {row["external_id"] for row in rows} <= workflows[str(each.row.schedule_id)]
        each.delete()


def running_and_ended(world: TemporalWorld, many: list[Schedules]) -> dict[str, set[str]]:
    """Give the workflows of each schedule, once all of them have ended."""
    found: dict[str, set[str]] = {}
    for each in many:
        schedule_id = str(each.row.schedule_id)
        temporal = temporal_id(world.app, each.row.schedule_id)
        listed = world.cli(
            "workflow", "list", "--limit", "1000", "--query", f"TemporalScheduledById = '{temporal}'"
        )
        assert all(one["status"] == "WORKFLOW_EXECUTION_STATUS_COMPLETED" for one in listed), schedule_id
        found[schedule_id] = {one["execution"]["workflowId"] for one in listed}
        instants = {name[-20:] for name in found[schedule_id]}
        alone = [fire for fire in each.history() if f"{fire.fire_at:%Y-%m-%dT%H:%M:%SZ}" not in instants]
        assert not alone, [(fire.fire_at, fire.outcome, fire.reason) for fire in alone]
        assert len(found[schedule_id]) == len(each.history())
    return found


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

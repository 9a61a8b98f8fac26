"""Temporal has the schedules that the table has: told, repaired, removed, and left alone."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from jobbridge.core.keys import SYSTEM_TENANT, Engine
from jobbridge.dev.process import DevServerError
from jobbridge.errors import DatabaseUnavailable, EngineUnavailable
from jobbridge.settings import load_settings
from jobbridge.store.database import Database
from jobbridge.store.schedules.mirrors import MirrorStore
from jobbridge.temporal.schedules.mirror import TemporalSchedules, temporal_id
from jobbridge.temporal.schedules.reconciler import ScheduleReconciler
from jobbridge.temporal.wire.client import TemporalClient
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.support import wait_until


class Sides:
    """Both sides of one world, and the reconciler between them, which works when it is asked."""

    def __init__(self, world: TemporalWorld, executor: ThreadPoolExecutor) -> None:
        self.world = world
        self.app = world.app
        self.client = world.app.delivery("temporal").client
        self.executor = executor
        self.reconciler = ScheduleReconciler(self.app, self.client, executor=executor)

    def create(self, when: Any = "0 1 * * *", name: str = "s", **options: Any) -> UUID:
        handle = self.app.schedules.create(
            "temporal.echo", when, {"a": 1}, name=name, engine=Engine.TEMPORAL, **options
        )
        return UUID(str(handle.schedule_id))

    def converge(self) -> int:
        return int(self.client.submit(self.reconciler.converge()).result(timeout=TIMEOUT))

    def sweep(self) -> int:
        return int(self.client.submit(self.reconciler.sweep()).result(timeout=TIMEOUT))

    def told(self, schedule_id: UUID) -> dict[str, Any] | None:
        """What Temporal has, in the words of its own CLI."""
        name = temporal_id(self.app, schedule_id)
        try:
            described = self.world.cli("schedule", "describe", "--schedule-id", name)
        except DevServerError as error:
            if "not found" in str(error):
                return None
            raise
        return dict(described["schedule"])

    def listed(self) -> set[UUID]:
        async def ours() -> set[UUID]:
            temporal = TemporalSchedules(self.app, await self.client.connected())
            return {told.schedule_id async for told in temporal.ours()}

        return set(self.client.submit(ours()).result(timeout=TIMEOUT))

    def wait_until_listed(self, *schedule_ids: UUID) -> None:
        wait_until(lambda: self.listed() == set(schedule_ids), timeout=TIMEOUT)

    def execute(self, statement: str, *values: Any) -> None:
        with psycopg.connect(self.world.environment["DATABASE_URL"], autocommit=True) as connection:
            connection.execute(statement, values)

    def clear(self) -> None:
        async def remove() -> None:
            temporal = TemporalSchedules(self.app, await self.client.connected())
            async for told in temporal.ours():
                await temporal.remove(told.schedule_id)

        self.client.submit(remove()).result(timeout=TIMEOUT)


@pytest.fixture
def sides(own_world: TemporalWorld) -> Iterator[Sides]:
    with ThreadPoolExecutor(2) as executor:
        sides = Sides(own_world, executor)
        yield sides
        sides.clear()


def test_temporal_is_told_all_that_the_row_says(sides: Sides) -> None:
    schedule_id = sides.create(
        "*/20 9-17 * * MON-FRI",
        zone="America/New_York",
        overlap="buffer_one",
        catchup=timedelta(hours=2),
        jitter=timedelta(seconds=40),
        priority=9,
        queue="reports",
    )

    assert sides.converge() == 1

    told = sides.told(schedule_id)
    assert told is not None
    [calendar] = told["spec"]["structuredCalendar"]
    assert told["spec"]["timezoneName"] == "America/New_York"
    assert calendar["comment"] == "*/20 9-17 * * MON-FRI (America/New_York)"
    assert calendar["hour"] == [{"start": 9, "end": 17, "step": 1}]
    assert calendar["dayOfWeek"] == [{"start": 1, "end": 5, "step": 1}]
    assert told["spec"]["jitter"] == "40s"
    assert told["policies"]["catchupWindow"] == "7200s"
    assert told["policies"]["overlapPolicy"] == "SCHEDULE_OVERLAP_POLICY_BUFFER_ONE"
    action = told["action"]["startWorkflow"]
    assert action["workflowType"]["name"] == "genericJobWorkflow"
    assert action["taskQueue"]["name"] == "reports"
    assert action["priority"] == {"priorityKey": 1}
    [payload] = action["input"]["payloads"]
    assert json.loads(base64.b64decode(payload["data"])) == {
        "jobName": "temporal.echo",
        "tenantId": SYSTEM_TENANT,
        "data": {"a": 1},
    }
    assert sides.converge() == 0


def test_an_interval_and_an_instant_are_told_as_such(sides: Sides) -> None:
    every = sides.create("1 day offset 2 hours", "every")
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=40)
    once = sides.create(at, "once")
    sides.converge()

    told_every, told_once = sides.told(every), sides.told(once)

    assert told_every is not None and told_once is not None  # noqa: PT018
    assert told_every["spec"]["interval"] == [{"interval": "86400s", "phase": "7200s"}]
    [calendar] = told_once["spec"]["structuredCalendar"]
    assert [part["start"] for part in (*calendar["year"], *calendar["month"])] == [at.year, at.month]


def test_pause_resume_and_change_reach_temporal(sides: Sides) -> None:
    schedule_id = sides.create()
    sides.converge()

    sides.app.schedules.pause("s", note="migrating")
    sides.converge()
    told = sides.told(schedule_id)
    assert told is not None
    assert (told["state"]["paused"], told["state"]["notes"]) == (True, "migrating")

    sides.app.schedules.resume("s")
    sides.create("30 2 * * *")
    sides.converge()
    told = sides.told(schedule_id)
    assert told is not None
    assert not told["state"].get("paused")
    assert told["spec"]["structuredCalendar"][0]["hour"] == [{"start": 2, "end": 2, "step": 1}]


def test_what_is_deleted_or_moves_to_celery_leaves_temporal(sides: Sides) -> None:
    deleted, moved = sides.create(name="deleted"), sides.create(name="moved")
    sides.converge()

    sides.app.schedules.delete("deleted")
    sides.app.schedules.update("moved", engine=Engine.CELERY)
    assert sides.app.schedules.find("moved").due_at is not None
    assert sides.converge() == 2

    assert sides.told(deleted) is None
    assert sides.told(moved) is None
    assert sides.app.schedules.find("moved").mirrored_version is None
    sides.app.schedules.update("moved", engine=Engine.TEMPORAL)
    assert sides.app.schedules.find("moved").due_at is None
    sides.converge()
    assert sides.told(moved) is not None


def test_a_sweep_makes_again_what_temporal_lost_and_unpauses_what_only_temporal_paused(sides: Sides) -> None:
    lost, paused = sides.create(name="lost"), sides.create(name="paused")
    sides.converge()
    sides.wait_until_listed(lost, paused)
    assert sides.sweep() == 0
    sides.world.temporal.run_cli("schedule", "delete", "--schedule-id", temporal_id(sides.app, lost))
    sides.world.temporal.run_cli(
        "schedule",
        "toggle",
        "--pause",
        "--reason",
        "by hand",
        "--schedule-id",
        temporal_id(sides.app, paused),
    )
    sides.wait_until_listed(paused)

    wait_until(lambda: sides.sweep() >= 1 and sides.told(lost), timeout=TIMEOUT)

    wait_until(lambda: sides.sweep() == 0, timeout=TIMEOUT)
    told = sides.told(paused)
    assert told is not None
    assert not told["state"].get("paused")


def test_an_orphan_with_our_mark_is_removed_and_what_is_not_ours_is_left_alone(sides: Sides) -> None:
    orphan, kept = sides.create(name="orphan"), sides.create(name="kept")
    sides.converge()
    foreign = f"foreign-{uuid4()}"
    sides.world.temporal.run_cli(
        "schedule", "create", "--schedule-id", foreign, "--interval", "30d", "--workflow-id", foreign,
        "--type", "TheirWorkflow", "--task-queue", "theirs",
        "--schedule-memo", f"jobbridge={json.dumps({'owner': 'another installation', 'scheduleId': str(uuid4())})}",
    )  # fmt: skip
    sides.wait_until_listed(orphan, kept)
    sides.execute("DELETE FROM job_schedules WHERE name = 'orphan'")

    assert sides.sweep() == 1

    assert sides.told(orphan) is None
    assert sides.told(kept) is not None
    assert sides.world.cli("schedule", "describe", "--schedule-id", foreign)["schedule"]
    sides.world.temporal.run_cli("schedule", "delete", "--schedule-id", foreign)


def test_a_name_that_somebody_else_has_in_temporal_is_said_and_left_alone(sides: Sides) -> None:
    schedule_id = sides.create()
    theirs = temporal_id(sides.app, schedule_id)
    sides.world.temporal.run_cli(
        "schedule", "create", "--schedule-id", theirs, "--interval", "30d", "--workflow-id", theirs,
        "--type", "TheirWorkflow", "--task-queue", "theirs",
    )  # fmt: skip

    assert sides.converge() == 0

    row = sides.app.schedules.find("s")
    assert "made by somebody else" in (row.mirror_error or "")
    assert row.mirrored_version is None
    told = sides.told(schedule_id)
    assert told is not None
    assert told["action"]["startWorkflow"]["workflowType"]["name"] == "TheirWorkflow"
    sides.world.temporal.run_cli("schedule", "delete", "--schedule-id", theirs)
    assert sides.converge() == 1
    assert sides.app.schedules.find("s").mirror_error is None


def test_what_cannot_be_asked_is_not_absent(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule_id = sides.create()
    sides.converge()
    sides.wait_until_listed(schedule_id)

    with monkeypatch.context() as outage:
        nowhere = Database("postgresql://127.0.0.1:1/away", connect_timeout=1)
        outage.setattr(sides.reconciler, "_store", MirrorStore(nowhere))
        with pytest.raises(DatabaseUnavailable):
            sides.sweep()
    assert sides.told(schedule_id) is not None

    away = TemporalClient(load_settings({**sides.world.environment, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    apart = ScheduleReconciler(sides.app, away, executor=sides.executor)
    sides.app.schedules.pause("s")
    with pytest.raises(EngineUnavailable):
        away.submit(apart.converge()).result(timeout=TIMEOUT)
    row = sides.app.schedules.find("s")
    assert row.mirrored_version == row.version - 1
    assert sides.converge() == 1
    away.close()


def test_one_of_several_reconcilers_works_and_hears_of_changes_at_once(sides: Sides) -> None:
    other = ScheduleReconciler(sides.app, sides.client, executor=sides.executor)
    running = [sides.client.submit(each.run()) for each in (sides.reconciler, other)]
    first = sides.create(name="first")
    wait_until(lambda: sides.app.schedules.find("first").mirrored_version == 1, timeout=TIMEOUT)

    began = asyncio.run(_time())
    sides.create(name="second")
    wait_until(lambda: sides.app.schedules.find("second").mirrored_version == 1, timeout=TIMEOUT)

    assert asyncio.run(_time()) - began < 4  # it would look by itself after five seconds
    assert sides.told(first) is not None
    with psycopg.connect(sides.world.environment["DATABASE_URL"]) as connection:
        query = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = ("
            "SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert connection.execute(query).fetchone() == (1,)
    for each in running:
        each.cancel()


def test_what_code_declares_for_temporal_is_there_without_any_beat(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_hour = {"task": "temporal.echo", "schedule": 3600, "args": [1]}
    declared = {
        "hourly": {**every_hour, "options": {"engine": "temporal"}},
        "gone": {**every_hour, "options": {"engine": "temporal"}},
        "of beat": {**every_hour, "options": {"engine": "celery"}},
    }
    monkeypatch.setitem(sides.app.conf, "beat_schedule", declared)
    assert sides.app.schedules.declare_missing(Engine.TEMPORAL) == ["gone", "hourly"]
    sides.execute("UPDATE job_schedules SET deleted_at = now() WHERE name = 'gone'")
    sides.execute("DELETE FROM job_schedules WHERE name = 'hourly'")

    running = sides.client.submit(sides.reconciler.run())
    wait_until(lambda: [row.mirrored_version for row in sides.app.schedules.list()] == [1], timeout=TIMEOUT)

    assert [row.name for row in sides.app.schedules.list()] == ["hourly"]
    assert sides.app.schedules.find("hourly").declared_by == sides.app.main
    running.cancel()


async def _time() -> float:
    return asyncio.get_running_loop().time()


def test_instants_that_temporal_left_out_are_noted(sides: Sides) -> None:
    sides.create("1 minute")
    sides.converge()
    sides.execute(
        "UPDATE job_schedules SET next_fire_at = date_trunc('minute', now()) - interval '5 minutes'"
    )

    sides.converge()

    fires = sides.app.schedules.history("s")
    assert 4 <= len(fires) <= 5
    assert {(fire.outcome, fire.reason) for fire in fires} == {("missed", "Temporal did not fire it")}
    next_fire_at = sides.app.schedules.find("s").next_fire_at
    assert next_fire_at is not None
    assert next_fire_at > datetime.now(UTC) - timedelta(minutes=2)

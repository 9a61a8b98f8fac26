"""Schedules in the table, and the jobs that firing them makes: on a clock that the test sets."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from jobbridge import Celery
from jobbridge.app.schedules.firing import ScheduleFirer
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId
from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.core.schedules.policies import FireOutcome, Overlap, fire_job_id
from jobbridge.core.schedules.specs import parse_spec
from jobbridge.core.status import JobStatus
from jobbridge.errors import ScheduleNotFound, UnknownHandler, UnsupportedOption
from jobbridge.settings import load_settings
from jobbridge.store.schedules.repository import SaveOutcome, ScheduleStore
from jobbridge.store.schedules.rows import ScheduleRow
from tests.support import wait_until

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def _tick(*args: Any, **kwargs: Any) -> None:
    """Never run here: there is no worker."""


class World:
    """An app whose schedules fire by a clock that stands until it is moved."""

    def __init__(self, database_url: str, name: str = "scheduled") -> None:
        self.now = NOON
        self.app = Celery(name, settings=load_settings({"DATABASE_URL": database_url}))
        self.app.task(name="tick", shared=False)(_tick)
        self.app.finalize()
        self.app.schedules.store = ScheduleStore(self.app.database, clock=self.clock)
        self.firer = ScheduleFirer(self.app, clock=self.clock)

    def clock(self, connection: Any) -> datetime:
        return self.now

    def make(self, when: Any = "* * * * *", **fields: Any) -> ScheduleRow:
        definition = self._defined(when, fields)
        self.app.schedules.save(definition)
        return self.app.schedules.find(definition.schedule_id)

    def have(self, when: Any = "* * * * *", **fields: Any) -> None:
        """Have one that was taken once, and would be refused today."""
        self.app.schedules.store.save(self._defined(when, fields))

    @staticmethod
    def _defined(when: Any, fields: dict[str, Any]) -> ScheduleDefinition:
        fields = {"name": "tick", "task": "tick", "engine": Engine.CELERY} | fields
        return ScheduleDefinition(spec=parse_spec(when), **fields)

    def row(self, name: str = "tick") -> ScheduleRow:
        return self.app.schedules.find(name)

    def pass_time(self, duration: timedelta) -> None:
        self.now += duration
        while self.firer.fire_due():
            pass

    def outcomes(self, name: str = "tick") -> list[tuple[str, FireOutcome]]:
        fires = reversed(self.app.schedules.history(name))
        return [(f"{fire.fire_at:%H:%M}", fire.outcome) for fire in fires]

    def count_jobs(self) -> int:
        with self.app.database.connection() as connection:
            [(jobs,)] = connection.execute("SELECT count(*) FROM jobs").fetchall()
            [(messages,)] = connection.execute("SELECT count(*) FROM jobbridge_broker.messages").fetchall()
        assert jobs == messages, "each job has its message"
        return int(jobs)

    def end(self, row: ScheduleRow, fire_at: datetime) -> None:
        """Cancel a fire's job, as an end like any other."""
        self.app.cancel_job(fire_job_id(row.tenant, row.schedule_id, fire_at))

    def status(self, row: ScheduleRow, fire_at: datetime) -> JobStatus:
        job = self.app.jobs.get(
            JobKey(tenant=row.tenant, job_id=fire_job_id(row.tenant, row.schedule_id, fire_at))
        )
        assert job is not None
        return job.status


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    world = World(database_url)
    yield world
    world.app.close()


def test_each_fire_is_a_job_of_its_own(world: World) -> None:
    row = world.make(overlap=Overlap.ALLOW, args=(1,), kwargs={"x": "y"}, queue="reports", priority=7)

    world.pass_time(timedelta(seconds=59))
    assert world.count_jobs() == 0
    world.pass_time(timedelta(minutes=2))

    assert world.outcomes() == [("12:01", FireOutcome.ENQUEUED), ("12:02", FireOutcome.ENQUEUED)]
    job = world.app.jobs.find(fire_job_id(row.tenant, row.schedule_id, NOON + MINUTE))
    assert job is not None
    assert (job.type, job.queue, job.priority, job.tenant) == ("tick", "reports", 7, SYSTEM_TENANT)
    assert job.metadata["schedule"] == {
        "id": str(row.schedule_id),
        "name": "tick",
        "fire_at": "2026-06-01T12:01:00+00:00",
    }
    after = world.row()
    assert (after.last_fire_at, after.next_fire_at) == (NOON + 2 * MINUTE, NOON + 3 * MINUTE)


def test_two_schedulers_at_once_make_each_job_once(database_url: str, world: World) -> None:
    other = World(database_url)
    for number in range(40):
        world.make(name=f"tick-{number}", overlap=Overlap.ALLOW)

    for _ in range(3):
        world.now = other.now = world.now + MINUTE
        threads = [threading.Thread(target=fire_all, args=(each,)) for each in (world, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    fire_all(world)
    other.app.close()

    assert world.count_jobs() == 120


def fire_all(world: World) -> None:
    while world.firer.fire_due(limit=5):
        pass


def test_what_a_scheduler_did_not_commit_is_fired_by_another(database_url: str, world: World) -> None:
    world.make()
    world.now += MINUTE
    other = World(database_url)
    other.now = world.now

    with psycopg.connect(_url(world)) as dying:
        dying.execute("SELECT FROM job_schedules FOR UPDATE")
        assert other.firer.fire_due() == 0, "held elsewhere"
        left = other.firer.time_to_next()
        assert left is not None
        assert left <= timedelta(0), "and due still"
        dying.rollback()

    assert other.firer.fire_due() == 1
    assert world.count_jobs() == 1
    other.app.close()


@pytest.mark.parametrize(
    ("overlap", "outcomes"),
    [
        (Overlap.SKIP, ["enqueued", "skipped", "skipped"]),
        (Overlap.ALLOW, ["enqueued", "enqueued", "enqueued"]),
        (Overlap.BUFFER_ONE, ["enqueued", "buffered", "skipped"]),
        (Overlap.CANCEL_OTHER, ["enqueued", "enqueued", "enqueued"]),
    ],
)
def test_overlap_policies(world: World, overlap: Overlap, outcomes: list[str]) -> None:
    row = world.make(overlap=overlap)

    for _ in range(3):
        world.pass_time(MINUTE)

    assert [outcome for _, outcome in world.outcomes()] == outcomes
    if overlap is Overlap.CANCEL_OTHER:
        assert world.status(row, NOON + MINUTE) is JobStatus.CANCELLED
        assert world.status(row, NOON + 3 * MINUTE) is JobStatus.QUEUED


def test_a_fire_that_waits_gets_its_job_when_the_earlier_one_ended(world: World) -> None:
    row = world.make(overlap=Overlap.BUFFER_ONE)
    world.pass_time(MINUTE)
    world.pass_time(MINUTE)
    assert world.row().buffered_fire_at == NOON + 2 * MINUTE

    world.pass_time(timedelta(seconds=2))
    assert world.outcomes()[1] == ("12:02", FireOutcome.BUFFERED)
    world.end(row, NOON + MINUTE)
    world.pass_time(timedelta(seconds=2))

    assert world.outcomes()[1] == ("12:02", FireOutcome.ENQUEUED)
    assert world.status(row, NOON + 2 * MINUTE) is JobStatus.QUEUED
    assert world.row().buffered_fire_at is None


def test_a_skipping_schedule_goes_on_when_its_job_ended(world: World) -> None:
    row = world.make()
    world.pass_time(MINUTE)
    world.end(row, NOON + MINUTE)

    world.pass_time(MINUTE)

    assert world.outcomes()[1] == ("12:02", FireOutcome.ENQUEUED)


def test_after_an_outage_what_is_within_the_window_is_made_up_for(world: World) -> None:
    world.make(overlap=Overlap.ALLOW, catchup=timedelta(minutes=3))

    world.pass_time(timedelta(hours=1))

    assert world.outcomes() == [
        ("12:01", FireOutcome.MISSED),
        *((f"12:{minute}", FireOutcome.ENQUEUED) for minute in (57, 58, 59)),
        ("13:00", FireOutcome.ENQUEUED),
    ]
    missed = world.app.schedules.history("tick")[-1]
    assert missed.missed_until == NOON + timedelta(minutes=57)


@pytest.mark.parametrize("minutes", [11, 130])  # the second is more than is planned at once
def test_after_an_outage_one_job_is_made_where_each_fire_cancels_the_job_before(
    world: World, minutes: int
) -> None:
    row = world.make(overlap=Overlap.CANCEL_OTHER)
    world.pass_time(MINUTE)

    world.pass_time(minutes * MINUTE)

    last = NOON + (minutes + 1) * MINUTE
    assert world.status(row, NOON + MINUTE) is JobStatus.CANCELLED
    assert world.status(row, last) is JobStatus.QUEUED
    with world.app.database.connection() as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM jobbridge_broker.messages").fetchone() == (1,)
    skipped = world.app.schedules.history("tick", limit=200)[1:-1]
    assert [fire.outcome for fire in skipped] == [FireOutcome.SKIPPED] * (minutes - 1)
    assert {fire.reason for fire in skipped} == {"a later fire is due already, and would cancel its job"}


def test_pause_and_resume(world: World) -> None:
    world.make(overlap=Overlap.ALLOW)
    world.app.schedules.pause("tick", note="moving house")
    assert world.row().note == "moving house"

    world.pass_time(5 * MINUTE)
    assert world.count_jobs() == 0
    world.app.schedules.resume("tick")
    world.pass_time(MINUTE)

    assert world.outcomes() == [("12:06", FireOutcome.ENQUEUED)], "a pause is not made up for"


def test_a_change_of_the_definition_leaves_a_pause(world: World) -> None:
    world.make()
    world.app.schedules.pause("tick")

    handle = world.app.schedules.update("tick", when="*/5 * * * *", overlap="allow")

    assert handle.outcome is SaveOutcome.UPDATED
    assert (world.row().spec, world.row().paused, world.row().version) == ("*/5 * * * *", True, 3)
    world.pass_time(timedelta(minutes=10))
    assert world.count_jobs() == 0
    world.app.schedules.resume("tick")
    world.pass_time(timedelta(minutes=5))
    assert world.outcomes() == [("12:15", FireOutcome.ENQUEUED)]


def test_the_same_definition_again_changes_nothing(world: World) -> None:
    before = world.make()
    world.now += timedelta(seconds=90)

    world.make()

    assert world.row() == before


def test_run_now_makes_a_job_beside_the_plan(world: World) -> None:
    world.make()
    world.app.schedules.pause("tick")
    before = world.row()

    job_id = world.firer.fire_now(before.tenant, before.schedule_id)

    assert world.app.jobs.find(job_id) is not None
    [fire] = world.app.schedules.history("tick")
    assert (fire.trigger, fire.outcome, fire.job_id) == ("manual", "enqueued", job_id)
    assert world.row().next_fire_at == before.next_fire_at


def test_run_now_says_that_no_job_could_be_made(world: World) -> None:
    world.have(options={"singleton_key": ""})

    with pytest.raises(
        UnsupportedOption, match="could not make a job: UnsupportedOption: singleton_key is ''"
    ):
        world.app.schedules.run_now("tick")

    assert [outcome for _, outcome in world.outcomes()] == [FireOutcome.FAILED]
    assert world.count_jobs() == 0


def test_a_fire_whose_singleton_key_is_taken_is_skipped(world: World) -> None:
    row = world.make(options={"singleton_key": "one"}, overlap=Overlap.ALLOW)

    world.pass_time(2 * MINUTE)

    assert world.outcomes() == [("12:01", FireOutcome.ENQUEUED), ("12:02", FireOutcome.SKIPPED)]
    [skipped, _] = world.app.schedules.history("tick")
    assert (skipped.job_id, skipped.reason) == (None, "another job has its singleton key")
    assert world.row().last_job_id == fire_job_id(row.tenant, row.schedule_id, NOON + MINUTE)
    assert world.count_jobs() == 1


def test_the_next_fire_asks_for_a_job_that_was_run_by_hand(world: World) -> None:
    row = world.make(overlap=Overlap.SKIP)
    world.now += timedelta(seconds=30)
    world.firer.fire_now(row.tenant, row.schedule_id)

    world.pass_time(timedelta(seconds=30))

    assert world.outcomes()[-1] == ("12:01", FireOutcome.SKIPPED)


def test_backfill_makes_the_jobs_that_are_missing_and_no_other(world: World) -> None:
    world.make(overlap=Overlap.SKIP)
    world.pass_time(MINUTE)
    world.pass_time(MINUTE)
    assert [outcome for _, outcome in world.outcomes()] == ["enqueued", "skipped"]

    made = world.app.schedules.backfill("tick", NOON - MINUTE, NOON + 2 * MINUTE)
    again = world.app.schedules.backfill("tick", NOON - MINUTE, NOON + 2 * MINUTE)

    assert [f"{instant:%H:%M}" for instant in made] == ["11:59", "12:00", "12:02"]
    assert again == []
    assert world.count_jobs() == 4


def test_backfill_runs_no_job_again_whose_fire_is_pruned(world: World) -> None:
    row = world.make()
    world.pass_time(MINUTE)
    world.end(row, NOON + MINUTE)
    with world.app.database.connection() as connection:
        connection.execute("DELETE FROM job_schedule_fires")

    assert world.app.schedules.backfill("tick", NOON, NOON + MINUTE) == [NOON]

    assert world.status(row, NOON + MINUTE) is JobStatus.CANCELLED


def test_too_much_is_not_backfilled(world: World) -> None:
    world.make()

    with pytest.raises(UnsupportedOption, match="more than 1000"):
        world.app.schedules.backfill("tick", NOON - timedelta(days=1), NOON)
    with pytest.raises(UnsupportedOption, match="is before the start"):
        world.app.schedules.backfill("tick", NOON, NOON - MINUTE)


def test_a_schedule_that_is_over_once_it_fired(world: World) -> None:
    world.make(NOON + MINUTE)

    world.pass_time(timedelta(minutes=10))
    world.pass_time(timedelta(minutes=10))

    assert world.outcomes() == [("12:01", FireOutcome.ENQUEUED)]
    assert world.row().next_fire_at is None
    assert world.firer.time_to_next() is None


def test_a_deleted_schedule_keeps_its_history_and_fires_no_more(world: World) -> None:
    row = world.make(overlap=Overlap.ALLOW)
    world.pass_time(MINUTE)

    world.app.schedules.delete("tick")
    world.pass_time(MINUTE)

    with pytest.raises(ScheduleNotFound, match="There is no schedule 'tick'"):
        world.row()
    assert len(world.app.schedules.store.history(row.tenant, row.schedule_id)) == 1
    assert world.make().version == 3, "made anew, it is the same schedule"
    world.pass_time(MINUTE)
    assert world.count_jobs() == 2


def test_deleting_waits_for_who_is_firing(world: World) -> None:
    row = world.make(overlap=Overlap.ALLOW)
    world.now += MINUTE
    firing, go_on = threading.Event(), threading.Event()

    def clock(connection: Any) -> datetime:
        connection.execute("SELECT FROM job_schedules FOR UPDATE")
        firing.set()
        go_on.wait(10)
        return world.now

    thread = threading.Thread(target=ScheduleFirer(world.app, clock=clock).fire_due)
    thread.start()
    assert firing.wait(10)
    deleting = threading.Thread(target=world.app.schedules.delete, args=("tick",))
    deleting.start()
    wait_until(lambda: _waits_for_lock(world))
    go_on.set()
    thread.join()
    deleting.join()

    assert world.count_jobs() == 1, "the fire was whole"
    world.pass_time(MINUTE)
    assert world.count_jobs() == 1
    assert world.app.schedules.store.get(row.tenant, row.schedule_id) is None


def _waits_for_lock(world: World) -> bool:
    with world.app.database.connection() as connection:
        waiting = (
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(connection.execute(waiting).fetchall())


def test_one_schedule_whose_job_cannot_be_made_does_not_stop_the_others(world: World) -> None:
    world.have(name="broken", options={"priority": "high"})
    world.make(name="whole")

    world.pass_time(MINUTE)

    assert world.outcomes("whole") == [("12:01", FireOutcome.ENQUEUED)]
    [fire] = world.app.schedules.history("broken")
    assert fire.outcome is FireOutcome.FAILED
    assert fire.reason
    assert world.row("broken").next_fire_at == NOON + 2 * MINUTE
    assert world.count_jobs() == 1


def test_a_row_that_cannot_be_read_does_not_stop_the_others(world: World) -> None:
    world.make(name="broken")
    world.make(name="whole")
    with world.app.database.connection() as connection:
        connection.execute("UPDATE job_schedules SET spec = 'now and then' WHERE name = 'broken'")

    world.pass_time(MINUTE)

    assert world.outcomes("whole") == [("12:01", FireOutcome.ENQUEUED)]
    assert world.row("broken").due_at == NOON + timedelta(minutes=6)


def test_jitter_delays_a_fire_and_not_its_name(world: World) -> None:
    row = world.make("1 hour", jitter=timedelta(minutes=30))
    assert row.next_fire_at == NOON + timedelta(hours=1)
    assert row.due_at is not None
    assert row.next_fire_at < row.due_at < row.next_fire_at + timedelta(minutes=30)

    world.pass_time(row.due_at - NOON - timedelta(seconds=1))
    assert world.count_jobs() == 0
    world.pass_time(timedelta(seconds=2))

    assert world.outcomes() == [("13:00", FireOutcome.ENQUEUED)]


def test_tenants_have_schedules_of_the_same_name(world: World) -> None:
    for tenant in ("acme", "umbrella"):
        world.make(tenant=TenantId(tenant))

    with pytest.raises(ScheduleNotFound, match="Several tenants"):
        world.row()
    world.pass_time(MINUTE)

    for tenant in ("acme", "umbrella"):
        [fire] = world.app.schedules.history("tick", tenant)
        assert fire.job_id is not None
        job = world.app.jobs.find(fire.job_id)
        assert job is not None
        assert job.tenant == tenant


def test_schedules_of_temporal_are_not_fired_here(world: World) -> None:
    row = world.make(engine=Engine.TEMPORAL)

    world.pass_time(MINUTE)

    assert (row.due_at, row.next_fire_at) == (None, NOON + MINUTE)
    assert world.count_jobs() == 0


def test_what_cannot_be_scheduled_is_refused_at_once(world: World) -> None:
    create = world.app.schedules.create
    with pytest.raises(UnknownHandler, match="tikc"):
        create("tikc", "* * * * *")
    with pytest.raises(UnsupportedOption, match="it has 6 fields"):
        create("tick", "0 * * * * *")
    with pytest.raises(UnsupportedOption, match="time zone 'Mars/Olympus'"):
        create("tick", "0 * * * *", zone="Mars/Olympus")
    with pytest.raises(UnsupportedOption, match="overlap is 'perhaps'"):
        create("tick", "0 * * * *", overlap="perhaps")
    with pytest.raises(UnsupportedOption, match="cannot be stored"):
        create("tick", "0 * * * *", {"args": [object()]})
    with pytest.raises(ScheduleNotFound):
        world.firer.fire_now(SYSTEM_TENANT, uuid.uuid4())


@pytest.mark.parametrize(
    "options",
    [
        {"singleton_policy": "perhaps"},
        {"singleton_key": ""},
        {"priority": 12},
        {"user_id": "Ann"},
    ],
    ids=str,
)
def test_options_that_no_fire_could_send_are_refused_when_they_are_given(
    world: World, options: dict[str, Any]
) -> None:
    world.app.schedules.create("tick", "0 * * * *", metadata={"by": "Ann"})

    with pytest.raises(UnsupportedOption):
        world.app.schedules.update("tick", options=options)

    [row] = world.app.schedules.list()
    assert row.options == {"job_metadata": {"by": "Ann"}}


def test_options_for_routers_that_only_another_process_has_are_left_to_it(world: World) -> None:
    world.app.schedules.create("tick", "0 * * * *")
    options = {"routing_key": "elsewhere", "serializer": "of-our-own", "region": "eu"}

    world.app.schedules.update("tick", options=options)

    [row] = world.app.schedules.list()
    assert row.options == options


def test_scheduling_what_nobody_can_run_warns_at_once(world: World) -> None:
    handle = world.app.schedules.create("tick", "0 * * * *", queue="nowhere")

    assert handle.outcome is SaveOutcome.CREATED
    assert handle.warning == "No running celery worker serves the queue 'nowhere' and knows 'tick'."


def test_history_and_deleted_schedules_are_pruned(world: World) -> None:
    world.make(overlap=Overlap.ALLOW)
    world.pass_time(5 * MINUTE)
    world.app.schedules.delete("tick")
    store = world.app.schedules.store

    assert store.prune(older_than=timedelta(days=1)) == 0
    assert store.prune(older_than=timedelta(0)) == 5

    with psycopg.connect(_url(world)) as own:
        assert own.execute("SELECT FROM job_schedules").fetchall() == []


def _url(world: World) -> str:
    return world.app.database.url.set(drivername="postgresql").render_as_string(hide_password=False)

"""Both engines fire at the same instants: Temporal's own answer, against the core's, over a year."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.workflowservice.v1 import ListScheduleMatchingTimesRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from jobbridge.core.schedules.fires import fires_between, is_fire
from jobbridge.core.schedules.mirroring import clock_changes, mirror
from jobbridge.core.schedules.specs import Cron, Every, Once
from jobbridge.dev.temporal import TemporalServer
from jobbridge.settings import load_settings
from jobbridge.temporal.schedules.mirror import spec_of
from jobbridge.temporal.wire.client import TemporalClient

SEED = int(os.environ.get("FIRES_SEED", "20260101"))
SPECS = int(os.environ.get("FIRES_SPECS", "150"))
ZONES = ["UTC", "Europe/Dublin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"]
#: Summer and winter time of both hemispheres.
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
#: The server gives at most so many of one question.
ANSWER_LIMIT = 1000
AROUND = timedelta(hours=3)


class Temporal:
    """One Schedule of a real server that never fires, asked when it would."""

    def __init__(self, address: str) -> None:
        self._client = TemporalClient(load_settings({"TEMPORAL_ADDRESS": address}))
        self._id = f"asked-{uuid4()}"
        self._call(self._create)

    def _call(self, work: Any) -> Any:
        return self._client.call(work)

    async def _create(self, client: Client) -> None:
        never = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=365))])
        action = ScheduleActionStartWorkflow("never", id="never", task_queue="never")
        self._handle = await client.create_schedule(self._id, Schedule(action=action, spec=never))
        await self._handle.pause()

    def tell(self, spec: ScheduleSpec) -> None:
        def change(found: ScheduleUpdateInput) -> ScheduleUpdate:
            found.description.schedule.spec = spec
            return ScheduleUpdate(found.description.schedule)

        self._call(lambda _: self._handle.update(change))

    def times(self, start: datetime, end: datetime) -> list[datetime]:
        """Give what matches from `start` to `end`, both included, as far as the server answers."""
        request = ListScheduleMatchingTimesRequest(
            namespace="default",
            schedule_id=self._id,
            start_time=_stamp(start - timedelta(seconds=1)),  # which it leaves out
            end_time=_stamp(end),
        )
        answer = self._call(lambda client: client.workflow_service.list_schedule_matching_times(request))
        return [time.ToDatetime(tzinfo=UTC) for time in answer.start_time]

    def close(self) -> None:
        self._call(lambda _: self._handle.delete())
        self._client.close()


@pytest.fixture(scope="module")
def asked(temporal: TemporalServer) -> Iterator[Temporal]:
    asked = Temporal(temporal.address)
    yield asked
    asked.close()


def _stamp(instant: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp


def random_cron(chance: random.Random) -> Cron:
    """Give a cron as people write them, often at the hours in which clocks are changed."""
    minute = chance.choice(["0", "30", "*/15", "*/20", "5,45", str(chance.randrange(60)), "*/7", "10-50/20"])
    hour = chance.choice(
        ["*", "1", "2", "0", "23", "3", "1-3", "*/2", "*/6", "9-17", "0,12", str(chance.randrange(24))]
    )
    day = chance.choice(["*"] * 6 + ["1", "1-7", "25-31", "*/10"])
    month = chance.choice(["*"] * 6 + ["MAR,OCT", "4-11", "1"])
    weekday = chance.choice(["*"] * 4 + ["SUN", "MON-FRI", "0,6", "7"])
    return Cron.parse(f"{minute} {hour} {day} {month} {weekday}")


def windows(zone: ZoneInfo, spec: Cron | Every, chance: random.Random) -> list[tuple[datetime, datetime]]:
    """Give the whole year, if the server answers for it at once; else the days around each change, and others."""
    whole = list(fires_between(spec, zone, START, END))
    if len(whole) < ANSWER_LIMIT * 0.9:
        return [(START, END)]
    day = timedelta(days=1)
    around = [(change - day, change + day) for change in clock_changes(zone, START, END)]
    anywhere = [START + timedelta(minutes=chance.randrange(360 * 24 * 60)) for _ in range(3)]
    return around + [(start, start + 2 * day) for start in anywhere]


@pytest.mark.long
@pytest.mark.parametrize("zone_name", ZONES)
def test_temporal_fires_when_the_core_says_over_a_year(asked: Temporal, zone_name: str) -> None:
    chance = random.Random(f"{SEED} {zone_name}")
    zone = ZoneInfo(zone_name)
    print(f"seed {SEED}")
    changes = list(clock_changes(zone, START, END))
    for _ in range(max(1, SPECS // len(ZONES))):
        cron = random_cron(chance)
        asked.tell(spec_of(mirror(cron, zone, START)))
        for start, end in windows(zone, cron, chance):
            told = asked.times(start, end)
            assert len(told) < ANSWER_LIMIT, cron
            fires = [instant for instant in told if is_fire(cron, zone, instant)]
            assert fires == list(fires_between(cron, zone, start, end)), (cron, zone_name)
            assert len(set(told)) == len(told)
            # What a run finds out to be no fire is seen only where a clock was changed.
            for instant in set(told) - set(fires):
                assert any(abs(instant - change) <= AROUND for change in changes), (cron, instant)


def test_intervals_and_instants_are_temporals_own(asked: Temporal) -> None:
    chance = random.Random(SEED)
    zone = ZoneInfo("UTC")
    for _ in range(20):
        seconds = chance.choice([7200, 86400, 5 * 86400, 100_003, chance.randrange(50_000, 10**6)])
        every = Every(interval=timedelta(seconds=seconds), phase=timedelta(seconds=chance.randrange(seconds)))
        asked.tell(spec_of(mirror(every, zone, START)))
        end = START + every.interval * 50
        times = asked.times(START, end)
        assert times == list(fires_between(every, zone, START, end))
        assert {later - earlier for earlier, later in pairwise(times)} == {every.interval}
    instant = START + timedelta(days=100, seconds=7)
    asked.tell(spec_of(mirror(Once(instant), zone, START)))
    assert asked.times(START, START + timedelta(days=70 * 365)) == [instant]

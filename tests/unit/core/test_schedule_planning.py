from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.core.keys import SYSTEM_TENANT, TenantId
from jobbridge.core.schedules.definition import Recurrence, overlap_named
from jobbridge.core.schedules.planning import Missed, ScheduleState, begin, plan
from jobbridge.core.schedules.policies import (
    FireOutcome,
    Overlap,
    decide_overlap,
    fire_job_id,
    jitter_of,
    schedule_id_for,
)
from jobbridge.core.schedules.specs import parse_spec
from jobbridge.errors import UnsupportedOption

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ID = uuid.UUID(int=7)


def state(when: str = "* * * * *", **fields: object) -> ScheduleState:
    fields = {
        "schedule_id": ID,
        "spec": parse_spec(when),
        "zone": ZoneInfo("UTC"),
        "next_fire_at": NOON,
    } | fields
    return ScheduleState(**fields)  # type: ignore[arg-type]


def test_nothing_is_due_before_its_time() -> None:
    planned = plan(state(), NOON - MINUTE)

    assert (planned.due, planned.missed, planned.next_fire_at, planned.due_at) == ((), None, NOON, NOON)


def test_what_is_due_and_what_comes_next() -> None:
    planned = plan(state(), NOON + 2 * MINUTE)

    assert planned.due == (NOON, NOON + MINUTE, NOON + 2 * MINUTE)
    assert planned.next_fire_at == planned.due_at == NOON + 3 * MINUTE


def test_more_than_fits_a_plan_is_due_still() -> None:
    planned = plan(state(), NOON + 10 * MINUTE, limit=2)

    assert len(planned.due) == 2
    assert planned.due_at == NOON + 2 * MINUTE


def test_what_is_too_late_was_missed() -> None:
    planned = plan(state(catchup=2 * MINUTE), NOON + 60 * MINUTE)

    assert planned.missed == Missed(first=NOON, until=NOON + 58 * MINUTE)
    assert planned.due == tuple(NOON + minute * MINUTE for minute in (58, 59, 60))


def test_a_long_outage_of_a_short_interval_is_planned_at_once() -> None:
    planned = plan(state("1 second", catchup=timedelta(seconds=1)), NOON + timedelta(days=3650))

    assert planned.missed is not None
    assert len(planned.due) == 2


def test_a_pause_has_nothing_due_and_nothing_to_look_at() -> None:
    planned = plan(state(is_paused=True), NOON + MINUTE)

    assert (planned.due, planned.due_at) == ((), None)
    assert begin(state(is_paused=True), NOON).due_at is None


def test_beginning_makes_up_for_nothing() -> None:
    assert begin(state(next_fire_at=None), NOON).next_fire_at == NOON + MINUTE


def test_the_last_fire_leaves_nothing_to_plan() -> None:
    planned = plan(state("2026-06-01T12:00:00+00:00"), NOON)

    assert (planned.due, planned.next_fire_at, planned.due_at) == ((NOON,), None, None)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20), st.integers(1, 300))
def test_however_often_it_is_looked_at_each_fire_is_planned_once(steps: list[int], every: int) -> None:
    now, current, seen = NOON, state(f"{every} seconds", next_fire_at=None), []
    first = begin(current, NOON).next_fire_at
    current = state(f"{every} seconds", next_fire_at=first)
    for step in steps:
        now += timedelta(seconds=step)
        while (planned := plan(current, now, limit=3)).due:
            seen += planned.due
            current = state(f"{every} seconds", next_fire_at=planned.next_fire_at)

    assert first is not None
    expected, instant = [], first
    while instant <= now:
        expected.append(instant)
        instant += timedelta(seconds=every)
    assert seen == expected


def test_jitter_is_the_same_for_all_and_does_not_pass_the_next_fire() -> None:
    found = [
        jitter_of(ID, NOON + n * MINUTE, at_most=timedelta(hours=1), following=NOON + (n + 1) * MINUTE)
        for n in range(50)
    ]

    assert all(timedelta(0) <= jitter < MINUTE for jitter in found)
    assert len(set(found)) > 40
    again = jitter_of(ID, NOON, at_most=timedelta(hours=1), following=NOON + MINUTE)
    assert again == found[0]
    assert jitter_of(ID, NOON, at_most=timedelta(0), following=None) == timedelta(0)


def test_a_fire_with_jitter_is_due_later_and_keeps_its_name() -> None:
    jittered = state("1 hour", jitter=timedelta(minutes=30))
    due_at = plan(jittered, NOON - MINUTE).due_at

    assert due_at is not None
    assert plan(jittered, due_at - timedelta(milliseconds=1)).due == ()
    assert plan(jittered, due_at).due == (NOON,)


@pytest.mark.parametrize(
    ("overlap", "is_running", "has_buffered", "outcome"),
    [
        (Overlap.SKIP, False, False, FireOutcome.ENQUEUED),
        (Overlap.SKIP, True, False, FireOutcome.SKIPPED),
        (Overlap.ALLOW, True, True, FireOutcome.ENQUEUED),
        (Overlap.BUFFER_ONE, False, False, FireOutcome.ENQUEUED),
        (Overlap.BUFFER_ONE, True, False, FireOutcome.BUFFERED),
        (Overlap.BUFFER_ONE, True, True, FireOutcome.SKIPPED),
        (Overlap.CANCEL_OTHER, False, False, FireOutcome.ENQUEUED),
        (Overlap.CANCEL_OTHER, True, False, FireOutcome.ENQUEUED),
    ],
)
def test_overlap(overlap: Overlap, is_running: bool, has_buffered: bool, outcome: FireOutcome) -> None:
    decision = decide_overlap(overlap, is_running=is_running, has_buffered=has_buffered)

    assert decision.outcome is outcome
    assert decision.cancels is (overlap is Overlap.CANCEL_OTHER and is_running)
    assert (decision.reason is None) is (outcome is FireOutcome.ENQUEUED)


def test_ids_are_the_same_wherever_they_are_made() -> None:
    acme = TenantId("acme")

    # Pinned: another id would make each schedule anew, and fire what was fired.
    assert str(schedule_id_for(acme, "nightly")) == "1784f8d4-0cd5-5bc3-b17a-d7653e7f904f"
    assert str(fire_job_id(acme, ID, NOON)) == "c4a7ab8e-3a1e-5857-a6e3-113012fae3bb"
    assert schedule_id_for(acme, "nightly") != schedule_id_for(SYSTEM_TENANT, "nightly")
    berlin = NOON.astimezone(ZoneInfo("Europe/Berlin"))
    assert fire_job_id(acme, ID, NOON) == fire_job_id(acme, ID, berlin)
    assert len({fire_job_id(acme, ID, NOON + n * MINUTE) for n in range(100)}) == 100


def test_a_recurrence_is_checked_where_it_is_written() -> None:
    assert Recurrence("24 hours", overlap="buffer-one").overlap is Overlap.BUFFER_ONE
    assert overlap_named("cancel_other") is Overlap.CANCEL_OTHER
    for wrong in (
        {"when": "often"},
        {"when": "1 hour", "zone": "Mars/Olympus"},
        {"when": "1 hour", "overlap": "perhaps"},
        {"when": "1 hour", "catchup": timedelta(0)},
        {"when": "1 hour", "jitter": timedelta(milliseconds=1)},
    ):
        with pytest.raises(UnsupportedOption) as caught:
            Recurrence(**wrong)  # type: ignore[arg-type]
        assert caught.value.hint

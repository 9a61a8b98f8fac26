"""The bars of a job lie on its axis, whatever its clock readings are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.core.status import JobStatus
from jobbridge.dashboard.views.timeline import WIDTH, first_due_at, timeline
from jobbridge.store.jobs.rows import JobDetailRow, JobRow
from tests.job_events import new_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSTANTS = st.none() | st.integers(-5000, 5000).map(lambda seconds: NOW + timedelta(seconds=seconds))


def job(**more: object) -> JobRow:
    known: dict[str, object] = dict.fromkeys(JobRow.__dataclass_fields__)
    known |= {"status": JobStatus.PROCESSING, "created_at": NOW, "key": new_key()} | more
    return JobRow(**known)  # type: ignore[arg-type]  # the fields that matter


def step(began_at: datetime, ended_at: datetime | None, name: str = "attempt") -> JobDetailRow:
    known: dict[str, object] = dict.fromkeys(JobDetailRow.__dataclass_fields__)
    known |= {
        "status": JobStatus.COMPLETED,
        "step_name": name,
        "attempt": 1,
        "detail_id": uuid4(),
        "metadata": {},
    }
    return JobDetailRow(**known | {"created_at": began_at, "processed_at": ended_at})  # type: ignore[arg-type]


@given(INSTANTS, INSTANTS, INSTANTS, st.lists(st.tuples(INSTANTS.filter(bool), INSTANTS), max_size=4))
def test_every_bar_is_on_the_axis(
    run_at: datetime | None,
    started_at: datetime | None,
    completed_at: datetime | None,
    parts: list[tuple[datetime, datetime | None]],
) -> None:
    row = job(run_at=run_at, started_at=started_at, completed_at=completed_at)
    bars = timeline(row, [step(*part) for part in parts], now=NOW + timedelta(seconds=1))

    assert len(bars) == (2 if first_due_at(row) > NOW else 1) + len(parts)
    for bar in bars:
        assert -0.001 <= bar.begin <= WIDTH
        assert 0 < bar.width <= WIDTH
        assert bar.begin + bar.width <= WIDTH + 0.001
        assert bar.took is None or bar.took >= timedelta(0)


def test_what_waits_and_what_runs_follow_each_other() -> None:
    started, ended = NOW + timedelta(seconds=1), NOW + timedelta(seconds=4)
    row = job(started_at=started, completed_at=ended, status=JobStatus.COMPLETED)
    waited, attempt = timeline(row, [step(started, ended)], now=ended)

    assert (waited.begin, waited.width) == (0, WIDTH / 4)
    assert (attempt.begin, attempt.width) == (WIDTH / 4, WIDTH * 3 / 4)
    assert (waited.took, attempt.took) == (timedelta(seconds=1), timedelta(seconds=3))


def test_a_job_that_is_retried_waited_for_its_first_start_and_not_for_its_retry() -> None:
    started, again = NOW + timedelta(seconds=2), NOW + timedelta(seconds=10)
    row = job(started_at=started, run_at=again, completed_at=again + timedelta(seconds=1))

    waited, *_ = timeline(row, [step(started, started), step(again, again)], now=again)

    assert (waited.label, waited.took) == ("waited", timedelta(seconds=2))


@pytest.mark.parametrize(
    ("status", "told", "label", "shown", "note"),
    [
        ("scheduled", {"durable": "sleep"}, "sleep", "sleeping", "until 01 Jan 00:01:00 UTC"),
        ("waiting", {"durable": "event"}, "wait for part", "waiting", "until 01 Jan 00:01:00 UTC"),
        (
            "completed",
            {"durable": "event", "timed_out": True},
            "wait for part",
            "timed out",
            "nothing came in time",
        ),
        (
            "completed",
            {"durable": "event", "event": "x", "sent_by": "Ada"},
            "wait for part",
            "completed",
            "sent by Ada",
        ),
        ("completed", {"durable": "run"}, "part", "completed", ""),
        (
            "cancelled",
            {"call": "call:part#1", "superseded": {}},
            "call part",
            "superseded",
            "made again since",
        ),
    ],
)
def test_a_durable_step_says_what_it_is(
    status: str, told: dict[str, object], label: str, shown: str, note: str
) -> None:
    row = job(started_at=NOW, status=JobStatus.SCHEDULED, run_at=NOW + timedelta(minutes=1))
    name = "sleep" if told.get("durable") == "sleep" else "part"
    made = replace(step(NOW, None, name), status=JobStatus(status), metadata=told)

    bar = timeline(row, [made], now=NOW)[-1]

    assert (bar.label, bar.status, bar.note) == (label, shown, note)

"""Recurring jobs through the runner API: the same rows whichever engine fires them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobbridge import JobRunner, JobRunnerFactory, Outcome
from jobbridge.core.schedules.policies import Overlap, schedule_id_for
from jobbridge.errors import DuplicateJob, UnknownHandler, UnsupportedOption
from tests.parity.conftest import World


@pytest.fixture
def runner(own_world: World) -> JobRunner:
    return JobRunnerFactory(own_world.app).get_runner()


def test_a_recurring_job_is_made_once_and_changed_by_a_second_call(
    own_world: World, runner: JobRunner
) -> None:
    options = {"tenant": "acme", "singleton_key": "nightly", "timezone": "Europe/Berlin", "priority": 3}
    schedule = runner.schedule_recurring_job

    first = schedule("parity.add", [1, 2], "0 3 * * *", options)
    again = schedule("parity.add", [1, 2], "0 3 * * *", options)
    changed = schedule("parity.add", [1, 2], "24 hours", {**options, "overlap": "allow"})

    assert (first.outcome, again.outcome, changed.outcome) == (
        Outcome.CREATED,
        Outcome.DEDUPLICATED,
        Outcome.REPLACED,
    )
    assert {first.job_id, again.job_id, changed.job_id} == {schedule_id_for("acme", "parity.add:nightly")}  # type: ignore[arg-type]
    [row] = own_world.app.schedules.list(tenant="acme")
    assert (row.engine, row.spec, row.zone, row.overlap, row.priority) == (
        own_world.engine,
        "1 day",
        "Europe/Berlin",
        Overlap.ALLOW,
        3,
    )
    assert (row.args, row.paused) == ([1, 2], False)
    assert row.next_fire_at is not None


def test_it_is_cancelled_by_its_id_and_only_by_its_tenant(own_world: World, runner: JobRunner) -> None:
    made = runner.schedule_recurring_job("parity.add", [1, 2], "24 hours", {"tenant": "acme"})

    assert not runner.cancel_job(made.job_id, "umbrella")
    assert runner.cancel_job(made.job_id, "acme")
    assert not runner.cancel_job(made.job_id, "acme")
    assert own_world.app.schedules.list() == []
    assert not runner.cancel_job(uuid.uuid4())


def test_who_has_the_key_keeps_it_when_the_policy_says_so(runner: JobRunner) -> None:
    options: dict[str, Any] = {"singleton_key": "x"}
    first = runner.schedule_recurring_job("parity.add", [1, 2], "1 hour", options)

    kept = runner.schedule_recurring_job(
        "parity.add", [1, 2], "2 hours", {**options, "singleton_policy": "skip"}
    )
    assert (kept.job_id, kept.outcome) == (first.job_id, Outcome.DEDUPLICATED)
    with pytest.raises(DuplicateJob):
        runner.schedule_recurring_job("parity.add", [], "2 hours", {**options, "singleton_policy": "raise"})


def test_scheduling_what_nobody_runs_warns(own_world: World, runner: JobRunner) -> None:
    made = runner.schedule_recurring_job("parity.add", [1, 2], "1 hour", {"queue": "nobody"})

    assert made.warning is not None
    assert f"No running {own_world.engine} worker serves the queue 'nobody'" in made.warning


def test_what_cannot_be_honoured_is_refused_and_leaves_nothing(own_world: World, runner: JobRunner) -> None:
    schedule = runner.schedule_recurring_job
    for when, options in [
        ("0 0 L * *", {}),
        ("*/90 * * * *", {}),
        ("0.5 seconds", {}),
        ("1 hour", {"run_at": datetime(2030, 1, 1, tzinfo=UTC)}),
        ("1 hour", {"expires": datetime(2030, 1, 1, tzinfo=UTC)}),
        ("1 hour", {"timezone": "Mars/Olympus"}),
        ("1 hour", {"overlap": "perhaps"}),
        ("1 hour", {"catchup": timedelta(milliseconds=1)}),
    ]:
        with pytest.raises(UnsupportedOption) as caught:
            schedule("parity.add", [1, 2], when, options)
        assert caught.value.hint
    with pytest.raises(UnknownHandler):
        schedule("parity.ad", [1, 2], "1 hour")
    with pytest.raises(UnsupportedOption, match="this job runs once"):
        runner.schedule_job("parity.add", [1, 2], {"overlap": "skip"})

    assert own_world.app.schedules.list() == []

"""What waits goes to the other engine, and back: once each, with all that it had."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain, chord
from temporalio.client import WorkflowExecutionStatus

from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.store.jobs.open_jobs import jobs_under_way
from jobbridge.temporal.reconcile.workflows import WorkflowReconciler
from tests.integration.cutover.conftest import TIMEOUT, Sides

LATER = timedelta(hours=5)
THERE_AND_BACK = [(Engine.CELERY, Engine.TEMPORAL), (Engine.TEMPORAL, Engine.CELERY)]


@pytest.mark.parametrize(("origin", "to"), THERE_AND_BACK, ids=["to temporal", "to celery"])
def test_what_waits_runs_once_on_the_other_side(sides: Sides, origin: Engine, to: Engine) -> None:
    first = sides.worker(origin)
    retried = sides.send("retried", origin, "retry", 6.0)
    sides.wait_for_status(retried, "retrying")
    first.stop()
    sent = [sides.send(f"queued-{number}", origin, priority=number) for number in (0, 5, 9)]
    pickled = sides.send("pickled", origin, serializer="pickle", compression="zlib")
    light = ["light"] if origin is Engine.TEMPORAL else []
    sent += [sides.send(name, origin, temporal_light=True) for name in light]
    later = sides.send("later", origin, eta=datetime.now(UTC) + LATER)
    run, follow, gather = (sides.app.tasks[f"cutover.{name}"] for name in ("run", "follow", "gather"))
    linked = chain(run.s("one").set(engine=str(origin)), follow.s("two").set(engine=str(origin))).delay()
    parts = [run.s(f"part-{number}").set(engine=str(origin)) for number in range(3)]
    gathered = chord(parts, gather.s("body").set(engine=str(origin))).delay()

    told = sides.moved("--to", str(to))

    assert "Both sides agree" in told
    assert {row["runner_type"] for row in sides.rows()} == {str(to)}
    assert sides.row(later)["run_at"] - datetime.now(UTC) > LATER - timedelta(minutes=5)
    assert sides.row(retried)["attempt"] == 1
    assert sides.messages() == (0 if to is Engine.TEMPORAL else len(sides.rows()))

    sides.worker(origin)  # it has nothing to do any more, but for what a chain sends there
    sides.worker(to)
    assert linked.get(timeout=TIMEOUT) == "one>two"
    assert gathered.get(timeout=TIMEOUT) == "part-0+part-1+part-2"
    sides.wait_for_status(retried, "completed")
    assert sides.row(retried)["attempt"] == 2
    for task_id in (*sent, pickled):
        sides.wait_for_status(task_id, "completed")
    assert sides.row(later)["status"] == "scheduled"
    assert sides.ran() == {
        **{f"queued-{number}": 1 for number in (0, 5, 9)},
        **{f"part-{number}": 1 for number in range(3)},
        **dict.fromkeys(light, 1),
        "pickled": 1, "retried": 2, "one": 1, "two": 1, "body": 1,
    }  # fmt: skip


def test_a_reconciler_that_sees_the_ended_workflow_cancels_nothing(sides: Sides) -> None:
    task_id = sides.send("moved", Engine.TEMPORAL)
    delivery: Any = sides.app.delivery(Engine.TEMPORAL)
    reconciler = WorkflowReconciler(sides.app, delivery)
    waiting = [JobStatus.QUEUED]
    [read] = jobs_under_way(sides.app.database, Engine.TEMPORAL, statuses=waiting, limit=10)

    sides.moved("--to", "celery")

    [(job, end)] = reconciler.ends_of([read]).items()
    assert end.status is WorkflowExecutionStatus.TERMINATED
    assert reconciler.settle(job, end, is_worker_dead=False) is None
    assert (sides.row(task_id)["status"], sides.messages()) == ("queued", 1)


def test_only_what_is_meant_goes_and_a_dry_run_moves_nothing(sides: Sides) -> None:
    moved = sides.send("moved", "celery", tenant="acme")
    others = [sides.send("other", "celery"), sides.send("kept", "celery", "retry", 1.0, tenant="acme")]
    meant = ("--to", "temporal", "--jobs", "cutover.ru?", "--tenant", "acme")

    assert "1  queued" in sides.moved(*meant, "--dry-run")
    assert {row["runner_type"] for row in sides.rows()} == {"celery"}
    sides.moved(*meant)

    assert sides.row(moved)["runner_type"] == "temporal"
    assert {sides.row(each)["runner_type"] for each in others} == {"celery"}

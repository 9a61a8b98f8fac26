"""Workers die between the writes of durable jobs: what was recorded is not made again, nothing that was sent is lost.

The points are those of the table in docs/decisions/0032-durable-jobs.md: before a suspension is written (a lock on the
row holds it up), after it and before the acknowledgement (the worker's parent is stopped), in a step, in an undo step,
and while nobody runs when a sleep is over or an event comes.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from jobbridge.core.keys import job_id_for
from tests.parity import durable_tasks  # noqa: F401  # its tasks are the app's
from tests.parity.conftest import World
from tests.support import children_of, wait_until

TIMEOUT = 90
_BLOCKED = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND application_name NOT LIKE '%%settlements'"
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def _sent(world: World, **hows: str) -> dict[str, Any]:
    task = world.app.tasks["parity.durable.dies"]
    return {name: task.delay({"how": how}) for name, how in hows.items()}


def _ready(world: World, sent: dict[str, Any]) -> None:
    for result in sent.values():
        wait_until(lambda: world.lines(result.id, "ready"), timeout=60)  # noqa: B023


def _kill(*pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _send_the_event(world: World, result: Any) -> None:
    world.wait_for_status(result.id, "waiting", timeout=TIMEOUT)
    assert world.app.send_event("approval", 1, job_id=result.id) == "delivered"


def _assert_recorded_once(world: World, result: Any, attempt: int) -> None:
    assert result.get(timeout=TIMEOUT) == {"attempt": attempt}
    assert [len(world.lines(result.id, name)) for name in ("before", "after")] == [1, 1]
    [end] = [row["status"] for row in world.details(result.id) if row["step_name"] == "after"]
    assert end == "completed"


def test_it_dies_before_the_suspension_is_written(own_world: World) -> None:
    worker = own_world.worker("-P", "prefork", "-c", "3")
    sent = _sent(own_world, sleep="sleep", event="event", call="call")
    _ready(own_world, sent)
    ids = [job_id_for(result.id) for result in sent.values()]

    with psycopg.connect(own_world.database_url) as holder:
        holder.execute("SELECT FROM jobs WHERE job_id = ANY(%s) FOR UPDATE", [ids])
        for result in sent.values():
            own_world.release(result)
        wait_until(lambda: len(own_world.looking.rows(_BLOCKED)) >= len(sent), timeout=60)
        _kill(*children_of(worker.pid))
        own_world.looking.rows(f"SELECT pg_terminate_backend(pid) FROM ({_BLOCKED}) AS blocked")
        holder.rollback()

    _send_the_event(own_world, sent["event"])
    for result in sent.values():
        _assert_recorded_once(own_world, result, attempt=2)
    assert len(own_world.rows("type = 'parity.durable.adds'")) == 1


def test_it_dies_after_the_suspension_is_written_and_before_it_is_acknowledged(own_world: World) -> None:
    worker = own_world.worker("-P", "prefork", "-c", "3")
    sent = _sent(own_world, sleep="sleep", event="event", call="call")
    _ready(own_world, sent)
    children = children_of(worker.pid)
    os.kill(worker.pid, signal.SIGSTOP)

    for result in sent.values():
        own_world.release(result)
    for result in sent.values():
        wait_until(lambda: own_world.row(result.id)["attempt"] == 0, timeout=60)  # noqa: B023
    _kill(worker.pid, *children)
    own_world.worker("-P", "prefork", "-c", "3")

    _send_the_event(own_world, sent["event"])
    for result in sent.values():
        _assert_recorded_once(own_world, result, attempt=1)
    assert len(own_world.rows("type = 'parity.durable.adds'")) == 1


def test_what_is_over_or_comes_while_no_worker_runs_goes_on_with_the_next(own_world: World) -> None:
    worker = own_world.worker("-P", "prefork", "-c", "3")
    sent = _sent(own_world, sleep="sleep", event="event")
    _ready(own_world, sent)
    for result in sent.values():
        own_world.release(result)
    own_world.wait_for_status(sent["event"].id, "waiting")
    own_world.wait_for_status(sent["sleep"].id, "scheduled")
    worker.stop()

    _send_the_event(own_world, sent["event"])
    is_due = "SELECT run_at < clock_timestamp() AS is_due FROM jobs WHERE job_id = %s"
    wait_until(lambda: own_world.looking.rows(is_due, [job_id_for(sent["sleep"].id)])[0]["is_due"])
    own_world.worker("-P", "prefork", "-c", "3")

    for result in sent.values():
        _assert_recorded_once(own_world, result, attempt=1)


def test_it_dies_in_a_step_and_among_undo_steps(own_world: World) -> None:
    own_world.worker("-P", "prefork", "-c", "3")
    sent = _sent(own_world, step="step", undo="undo")
    _ready(own_world, sent)
    for result in sent.values():
        own_world.release(result)

    _assert_recorded_once(own_world, sent["step"], attempt=2)
    row = own_world.wait_for_status(sent["undo"].id, "failed", timeout=TIMEOUT)
    assert row["error"] == "ValueError: undo it"
    # What died with its process before it was recorded is made again, and what was recorded is not.
    assert own_world.lines(sent["undo"].id, "undone") == ["third", "second", "second", "first"]

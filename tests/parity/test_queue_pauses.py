"""A queue that is paused gives nothing to workers, on either engine; what runs goes on, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobbridge.core.keys import Engine, job_id_for
from jobbridge.diagnosis.consumers import check_workers
from jobbridge.diagnosis.explain import explain
from jobbridge.store.workers.queue_pauses import QueuePauses
from tests.parity.conftest import World
from tests.support import wait_until


@pytest.fixture
def pauses(world: World) -> Iterator[QueuePauses]:
    pauses = QueuePauses(world.app.database)
    yield pauses
    pauses.resume("celery")


def wait_until_paused(world: World) -> None:
    """Wait until the world's worker says itself that it consumes nothing."""

    def has_let_go() -> bool:
        answers: Any = world.app.control.inspect(timeout=1.0, limit=1).active_queues()
        return bool(answers) and all(queues == [] for queues in answers.values())

    wait_until(has_let_go, timeout=10, message="the worker lets go of the queue")


def test_a_paused_queue_waits_and_what_runs_goes_on(world: World, pauses: QueuePauses) -> None:
    running = world.task("hold").delay()
    world.wait_for_status(running.id, "processing")

    assert pauses.pause("celery", by="ops", note="mail provider is down")
    wait_until_paused(world)
    waiting = [world.task("add").delay(n, 1) for n in range(3)]

    world.release(running)
    world.wait_for_status(running.id, "completed")
    assert [world.row(sent.id)["status"] for sent in waiting] == ["queued"] * 3
    job = world.app.jobs.find(job_id_for(waiting[0].id))
    assert job is not None
    reason = explain(world.app, job).reasons[0]
    assert reason.code == "queue_paused"
    assert "by ops (mail provider is down)" in reason.what
    checks = {check.name: check for check in check_workers(world.app)}
    assert checks["workers"].is_good
    assert "mail provider is down" in checks["paused queues"].found

    assert pauses.resume("celery")
    for n, sent in enumerate(waiting):
        world.wait_for_status(sent.id, "completed")
        assert world.lines(sent.id, "add") == [f"{n}+1"], "once"


def messages(world: World, where: str) -> int:
    """Count the broker's messages."""
    with psycopg.connect(world.database_url) as connection:
        rows = connection.execute(f"SELECT count(*) FROM jobbridge_broker.messages WHERE {where}").fetchall()
    return int(rows[0][0])


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_a_worker_has_taken_ahead_does_not_start(own_world: World, pool: str) -> None:
    is_celery = own_world.engine is Engine.CELERY
    own_world.worker("-P", pool, "-c", "1", "--prefetch-multiplier", "8")
    running = own_world.task("hold").delay()
    own_world.wait_for_status(running.id, "processing")
    waiting = [own_world.task("add").delay(n, 1) for n in range(6)]
    wait_until(lambda: messages(own_world, "leased_by IS NOT NULL") == (7 if is_celery else 0))

    pauses = QueuePauses(own_world.app.database)
    pauses.pause("celery")
    wait_until_paused(own_world)
    own_world.release(running)
    own_world.wait_for_status(running.id, "completed")
    given_back = "leased_by IS NULL AND deliveries = 0"
    wait_until(lambda: messages(own_world, given_back) == (6 if is_celery else 0))
    assert [own_world.row(sent.id)["status"] for sent in waiting] == ["queued"] * 6

    pauses.resume("celery")
    for n, sent in enumerate(waiting):
        row = own_world.wait_for_status(sent.id, "completed")
        assert row["attempt"] == 1
        assert own_world.lines(sent.id, "add") == [f"{n}+1"], "once"


@pytest.mark.parametrize("engine", [Engine.CELERY], indirect=True)  # Temporal takes nothing ahead
def test_what_goes_back_to_a_paused_queue_keeps_no_other_job_waiting(own_world: World) -> None:
    own_world.worker("-P", "threads", "-c", "1", "--prefetch-multiplier", "150", "-Q", "celery,paused")
    running = own_world.task("hold").delay()
    own_world.wait_for_status(running.id, "processing")
    for number in range(120):
        own_world.task("add").apply_async([number, 1], queue="paused")
    wait_until(lambda: messages(own_world, "leased_by IS NOT NULL") == 121)
    last = own_world.task("add").delay(1, 1)
    wait_until(lambda: messages(own_world, "leased_by IS NOT NULL") == 122)

    QueuePauses(own_world.app.database).pause("paused")
    own_world.release(running)
    own_world.wait_for_status(last.id, "completed")

    waited = own_world.row(last.id)["started_at"] - own_world.row(running.id)["completed_at"]
    assert waited.total_seconds() < 6, "a pause for each that went back would be 12 s"


def test_a_job_that_comes_before_the_worker_has_heard_does_not_start(own_world: World) -> None:
    """The pause is a row without a word to anybody, as if its NOTIFY were lost; the worker looks a moment later."""
    own_world.worker("-P", "prefork", "-c", "1")
    with psycopg.connect(own_world.database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO job_queue_pauses (queue) VALUES ('celery')")
    sent = own_world.task("add").delay(1, 1)

    wait_until_paused(own_world)
    if own_world.engine is Engine.CELERY:  # Temporal has no message that could go back: it may have begun
        assert own_world.row(sent.id)["status"] == "queued"

    QueuePauses(own_world.app.database).resume("celery")
    own_world.wait_for_status(sent.id, "completed")
    assert own_world.lines(sent.id, "add") == ["1+1"], "once"


def test_a_queue_is_resumed_while_a_job_of_before_runs(world: World, pauses: QueuePauses) -> None:
    running = world.task("hold").delay()
    world.wait_for_status(running.id, "processing")
    pauses.pause("celery")
    wait_until_paused(world)

    pauses.resume("celery")
    sent = world.task("add").delay(2, 2)
    world.wait_for_status(sent.id, "completed")

    world.release(running)
    world.wait_for_status(running.id, "completed")

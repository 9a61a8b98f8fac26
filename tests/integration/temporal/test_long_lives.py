"""What lives long, or is told much, stays within what Temporal lets a workflow's history hold.

Temporal's limits are made small here, so that a few events stand for fifty thousand.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.core.keys import Engine
from jobbridge.dev.postgres import PostgresServer
from jobbridge.dev.temporal import run_temporal
from tests.conftest import StartWorker
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld, make_world
from tests.support import wait_until

pytestmark = pytest.mark.xdist_group("temporal-small-limits")

#: Temporal's own: 4,096 events and 4 MB; 10,000 signals, then it refuses them.
LIMITS = {
    "limit.historyCount.suggestContinueAsNew": 40,
    "limit.historySize.suggestContinueAsNew": 400_000,
    "history.maximumSignalsPerExecution": 60,
}

COUNT_WRITINGS = """
CREATE TABLE writings (name text);
CREATE FUNCTION note_writing() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO writings VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
CREATE TRIGGER note_progress AFTER UPDATE OF progress ON jobs FOR EACH ROW
    WHEN (NEW.progress IS NOT NULL) EXECUTE FUNCTION note_writing();
CREATE TRIGGER note_state AFTER INSERT OR UPDATE ON job_keys FOR EACH ROW EXECUTE FUNCTION note_writing();
"""
COUNT_NO_MORE = "DROP FUNCTION note_writing CASCADE; DROP TABLE writings"


@pytest.fixture(scope="module")
def small(
    postgres: PostgresServer, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TemporalWorld]:
    folder = tmp_path_factory.mktemp("small-limits")
    url = postgres.create_database("world_of_small_limits", template=migrated_template)
    with ExitStack() as started:
        server = started.enter_context(run_temporal(log_path=folder / "temporal.log", dynamic_config=LIMITS))
        world = make_world(url, server, folder, started)
        world.worker("-P", "prefork", "-c", "2")
        yield world


def _ask(world: TemporalWorld, work: Any) -> Any:
    return world.app.delivery(Engine.TEMPORAL).client.call(work)


def _run_id(world: TemporalWorld, workflow_id: str) -> str:
    async def describe(client: Client) -> str:
        return str((await client.get_workflow_handle(workflow_id).describe()).run_id)

    return str(_ask(world, describe))


def _runs(world: TemporalWorld, workflow_id: str) -> list[WorkflowHistory]:
    """Give the histories of all runs, the latest first."""

    async def fetch(client: Client) -> list[WorkflowHistory]:
        found: list[WorkflowHistory] = []
        run_id: str | None = None
        while run_id != "":
            found.append(await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history())
            run_id = (
                found[-1].events[0].workflow_execution_started_event_attributes.continued_execution_run_id
            )
        return found

    return list(_ask(world, fetch))


def _tell(world: TemporalWorld, workflow_id: str, *, first: int, number: int) -> int:
    """Signal progress so many times at once; gives how many signals Temporal took."""

    async def tell(client: Client) -> int:
        handle = client.get_workflow_handle(workflow_id)

        async def one(progress: float) -> bool:
            try:
                await handle.signal("updateProgress", {"progress": progress})
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                return False
            return True

        return sum(await asyncio.gather(*(one((first + each) / 10) for each in range(number))))

    return int(_ask(world, tell))


def _tell_all(world: TemporalWorld, workflow_id: str, *, first: int, number: int) -> None:
    """Signal progress so many times; a run that has all it may have goes on as another one, which takes the rest."""
    left = number

    def are_taken() -> bool:
        nonlocal left
        left -= _tell(world, workflow_id, first=first + number - left, number=left)
        return left == 0

    wait_until(are_taken, timeout=TIMEOUT, every=0.2)


def _is_continued(world: TemporalWorld, workflow_id: str, former: str) -> None:
    wait_until(lambda: _run_id(world, workflow_id) != former, timeout=TIMEOUT, message="continued as new")


def test_arguments_are_in_the_history_once_however_often_a_job_is_retried(small: TemporalWorld) -> None:
    text = "x" * 100_000
    result = small.task("temporal.retries").delay(6, text)

    assert result.get(timeout=TIMEOUT) == len(text)
    small.wait_for_closed(result.id, "COMPLETED")
    runs = _runs(small, result.id)
    assert (
        sum(len(json.dumps(run.to_json_dict())) for run in runs) < 300_000
    )  # once in base64, and all the rest


def test_a_job_continues_as_new_when_temporal_suggests_it(small: TemporalWorld) -> None:
    result = small.task("temporal.retries").delay(20)

    assert result.get(timeout=TIMEOUT) == 0
    small.wait_for_closed(result.id, "COMPLETED")
    runs = _runs(small, result.id)
    assert len(runs) > 2
    assert max(len(run.events) for run in runs) < 80
    assert small.row(result.id)["attempt"] == 20
    state = small.state(result.id)
    assert (state["attempt"], state["step"]) == (20, "completed")


def test_a_large_history_is_continued_before_it_is_long(small: TemporalWorld) -> None:
    """Nothing but its input has the arguments of a job that a foreign client started, so each attempt repeats them."""
    job_id = small.start_workflow("temporal.rejects", {"kwargs": {"times": 5, "text": "x" * 100_000}})

    small.wait_for_closed(job_id, "COMPLETED")

    runs = _runs(small, job_id)
    assert len(runs) > 1
    assert max(len(run.events) for run in runs) < 40


def test_a_job_that_waits_hears_its_cancellation_however_many_signals_it_was_sent(
    small: TemporalWorld,
) -> None:
    result = small.task("parity.add").apply_async((1, 1), countdown=3600)
    wait_until(lambda: small.state(result.id)["step"] == "scheduled", timeout=TIMEOUT, every=0.2)
    for batch in range(3):
        former = _run_id(small, result.id)
        _tell_all(small, result.id, first=50 * batch, number=50)
        _is_continued(small, result.id, former)

    state = small.state(result.id)
    assert (state["step"], state["attempt"]) == ("scheduled", 0)
    assert state["progress"] > 10
    small.signal(result.id, "cancelJob", {"reason": "enough"})

    small.wait_for_closed(result.id, "COMPLETED")
    row = small.row(result.id)
    assert (row["status"], row["cancel_reason"]) == ("cancelled", "enough")


def test_a_job_that_runs_is_cancelled_though_temporal_takes_no_more_signals_for_it(
    small: TemporalWorld,
) -> None:
    result = small.task("temporal.steady").delay()
    small.wait_for_start(result.id)
    assert _tell(small, result.id, first=0, number=70) == 60

    assert small.app.cancel_job(result.id, reason="enough")

    small.wait_for_closed(result.id, "CANCELED")
    row = small.row(result.id)
    assert (row["status"], row["cancel_reason"]) == ("cancelled", "enough")
    assert len(_runs(small, result.id)[0].events) < 60 * 4 + 60


def test_a_parent_that_was_sent_many_signals_still_hears_of_its_children(small: TemporalWorld) -> None:
    result = small.task("parity.fan_out").delay({"children": 3, "each": {"holds": [0]}})
    wait_until(lambda: small.state(result.id)["step"] == "waiting", timeout=TIMEOUT, every=0.2)
    for batch in range(2):
        former = _run_id(small, result.id)
        _tell_all(small, result.id, first=50 * batch, number=50)
        _is_continued(small, result.id, former)

    assert small.state(result.id)["step"] == "waiting"
    small.release(result.id)

    assert result.get(timeout=TIMEOUT)["completed"] == 3
    small.wait_for_closed(result.id, "COMPLETED")


def test_a_cancellation_in_the_moment_of_the_switch_is_not_lost(small: TemporalWorld) -> None:
    results = [small.task("parity.add").apply_async((1, 1), countdown=3600) for _ in range(4)]
    for result in results:
        wait_until(lambda: small.state(result.id)["step"] == "scheduled", timeout=TIMEOUT, every=0.2)  # noqa: B023

    async def tell_and_cancel(client: Client) -> None:
        async def signal(workflow_id: str, name: str, document: Any) -> None:
            with suppress(RPCError):  # a run that heard of the cancellation is closed
                await client.get_workflow_handle(workflow_id).signal(name, document)

        signals = []
        for number, result in enumerate(results):
            told = [("updateProgress", {"progress": each}) for each in range(45)]
            told.insert(38 + 2 * number, ("cancelJob", {"reason": "enough"}))
            signals += [signal(result.id, *each) for each in told]
        await asyncio.gather(*signals)

    _ask(small, tell_and_cancel)

    for result in results:
        small.wait_for_closed(result.id, "COMPLETED")
        assert small.row(result.id)["status"] == "cancelled"


@pytest.fixture
def written(small: TemporalWorld) -> Iterator[psycopg.Connection[Any]]:
    """Count what is written of progress and states, in a table."""
    with psycopg.connect(small.environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(COUNT_WRITINGS)
        yield connection
        connection.execute(COUNT_NO_MORE)


def test_a_hundred_thousand_reports_are_a_few_writings_and_no_signal(
    small: TemporalWorld, written: psycopg.Connection[Any]
) -> None:
    result = small.task("temporal.reports").delay({"times": 50_000})
    small.wait_for_start(result.id)

    wait_until(lambda: small.row(result.id)["progress"] == 25, timeout=TIMEOUT)  # the last
    assert result.info == {"current": 50_000, "total": 200_000}
    assert small.state(result.id)["progress"] == 25
    row = small.row(result.id)
    seconds = (row["updated_at"] - row["started_at"]).total_seconds()
    [(writings,)] = written.execute("SELECT count(*) FROM writings").fetchall()
    assert 4 <= writings < 20 + 10 * seconds
    events = _runs(small, result.id)[0].events
    assert not [each for each in events if each.HasField("workflow_execution_signaled_event_attributes")]

    assert small.app.cancel_job(result.id)
    small.wait_for_closed(result.id, "COMPLETED")
    events = _runs(small, result.id)[0].events
    signaled = next(each for each in events if each.HasField("workflow_execution_signaled_event_attributes"))
    took = events[-1].event_time.ToDatetime() - signaled.event_time.ToDatetime()
    print("cancelled within", took)
    assert took < timedelta(seconds=5)  # one to the next heartbeat, and the process's end
    assert small.row(result.id)["status"] == "cancelled"


def test_the_history_of_a_parent_does_not_grow_with_its_children(small: TemporalWorld) -> None:
    lengths = []
    for children in (2, 40):
        result = small.task("temporal.fans_out").delay({"children": children, "engine": "temporal"})
        assert result.get(timeout=TIMEOUT)["completed"] == children
        small.wait_for_closed(result.id, "COMPLETED")
        lengths.append(sum(len(run.events) for run in _runs(small, result.id)))

    assert lengths[0] == lengths[1]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_parent_of_thousands_of_children_ends_right(
    own_world: TemporalWorld, celery_worker: StartWorker
) -> None:
    """The children run on Celery, which is the quicker one: the parent's workflow does not know where.

    More than two pages of members (of 1,000 each); 20,000 left the same history.
    """
    own_world.worker("-c", "1")
    celery_worker("tests.integration.temporal.tasks", "-c", "2", **own_world.environment)

    result = own_world.task("temporal.fans_out").delay({"children": 2_200, "engine": "celery"})

    assert result.get(timeout=800)["completed"] == 2_200
    own_world.wait_for_closed(result.id, "COMPLETED")
    assert len(own_world.history(result.id)) < 50


@pytest.mark.long
@pytest.mark.timeout(900)
def test_hundreds_of_retries_with_large_arguments_end_right(own_world: TemporalWorld) -> None:
    """Against Temporal's own limits: 300 times 200 kB are more than the 50 MB that a history may have."""
    own_world.worker("-c", "2")
    text = "x" * 200_000

    result = own_world.task("temporal.retries").delay(300, text)

    assert result.get(timeout=800) == len(text)
    assert own_world.row(result.id)["attempt"] == 300
    own_world.wait_for_closed(result.id, "COMPLETED")

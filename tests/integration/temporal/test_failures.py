"""Killed, silent and stopping workers; Temporal and the control plane going away."""

from __future__ import annotations

import json
import os
import signal
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest
from temporalio.client import Client

from jobbridge.core.events import Completed, Failed, JobEvent, Started
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, job_id_for
from jobbridge.dev.postgres import PostgresServer
from jobbridge.dev.process import ManagedProcess, free_port
from jobbridge.dev.temporal import run_temporal
from jobbridge.settings import load_settings
from tests.integration.temporal.conftest import TIMEOUT, TemporalWorld
from tests.integration.temporal.tasks import make_app
from tests.proxy import Proxy
from tests.support import children_of, wait_until


def test_a_killed_workers_job_is_run_by_another(own_world: TemporalWorld) -> None:
    first = own_world.worker("-c", "1")
    result = own_world.task("temporal.steady").delay()
    own_world.wait_for_start(result.id)
    own_world.worker("-c", "1")

    first.kill()
    own_world.wait_for_start(result.id, times=2)

    own_world.release(result.id)
    assert result.get(timeout=TIMEOUT) == 2
    assert len(own_world.lines(result.id, "done")) == 1  # the first one's process died with it
    row = own_world.row(result.id)
    assert (row["status"], row["attempt"]) == ("completed", 2)


def test_a_job_that_must_not_run_twice_fails_when_its_worker_is_killed(own_world: TemporalWorld) -> None:
    first = own_world.worker("-c", "1")
    result = own_world.task("temporal.early").delay()
    own_world.wait_for_start(result.id)
    wait_for_word_of_its_beginning(own_world, result.id)  # until then it may run again

    first.kill()
    own_world.worker("-c", "1")

    row = own_world.wait_for_status(result.id, "failed", timeout=30)
    assert "not to be run twice" in row["error"]
    assert len(own_world.lines(result.id, "started")) == 1
    own_world.wait_for_closed(result.id, "FAILED")


@pytest.mark.parametrize("is_light", [False, True], ids=["workflow", "light"])
def test_a_retry_that_is_written_is_made_although_its_worker_was_killed(
    own_world: TemporalWorld, is_light: bool
) -> None:
    first = own_world.worker("-c", "1")
    result = own_world.task("temporal.early_retrying").apply_async(temporal_light=is_light)
    own_world.wait_for_start(result.id)
    if is_light:
        wait_until(lambda: own_world.activity(result.id).total_heartbeat_count, timeout=TIMEOUT)
    else:
        wait_for_word_of_its_beginning(own_world, result.id)
    delivery, processes = own_world.row(result.id)["delivery"], children_of(first.pid)

    os.kill(first.pid, signal.SIGSTOP)  # so that it does not tell Temporal
    own_world.release(result.id)
    wait_until(lambda: own_world.row(result.id)["delivery"] != delivery, timeout=TIMEOUT)
    for pid in (first.pid, *processes):
        os.kill(pid, signal.SIGKILL)
    own_world.worker("-c", "1")

    assert result.get(timeout=60) == 2
    assert own_world.row(result.id)["status"] == "completed"


def wait_for_word_of_its_beginning(world: TemporalWorld, workflow_id: str) -> None:
    """Wait until Temporal has the heartbeat by which a worker says that the task has begun."""

    async def details(client: Client) -> str:
        description = await client.get_workflow_handle(workflow_id).describe()
        (pending,) = description.raw_description.pending_activities
        return str(pending.heartbeat_details)

    client = world.app.delivery(Engine.TEMPORAL).client
    wait_until(lambda: "true" in client.call(details), timeout=TIMEOUT, message="a heartbeat")


def test_a_job_that_must_not_run_twice_is_left_to_the_worker_that_runs_it_still(
    own_world: TemporalWorld,
) -> None:
    first = own_world.worker("-c", "1")
    result = own_world.task("temporal.early").delay()
    own_world.wait_for_start(result.id)
    wait_for_word_of_its_beginning(own_world, result.id)
    second = own_world.worker("-c", "1")

    os.kill(first.pid, signal.SIGSTOP)  # Temporal hears nothing of it; its pool process goes on
    try:
        wait_until(lambda: holding_back(second), timeout=TIMEOUT)
        own_world.release(result.id)

        own_world.wait_for_closed(result.id, "COMPLETED")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    row = own_world.row(result.id)
    assert (row["status"], row["attempt"]) == ("completed", 1)
    assert len(own_world.lines(result.id, "started")) == 1


def test_a_job_that_must_not_run_twice_does_not_though_who_waited_for_it_dies(
    own_world: TemporalWorld,
) -> None:
    first = own_world.worker("-c", "1")
    result = own_world.task("temporal.early").delay()
    own_world.wait_for_start(result.id)
    wait_for_word_of_its_beginning(own_world, result.id)
    second = own_world.worker("-c", "1")
    os.kill(first.pid, signal.SIGSTOP)
    wait_until(lambda: holding_back(second), timeout=TIMEOUT)

    second.kill()
    third = own_world.worker("-c", "1")
    wait_until(
        lambda: holding_back(third), timeout=TIMEOUT
    )  # it begins with what the second one told Temporal
    first.kill()

    assert "not to be run twice" in own_world.wait_for_status(result.id, "failed")["error"]
    own_world.wait_for_closed(result.id, "FAILED")
    assert len(own_world.lines(result.id, "started")) == 1


def holding_back(*workers: ManagedProcess) -> list[ManagedProcess]:
    """Give those that have a job which another worker runs still."""
    return [worker for worker in workers if "temporal.job_held_elsewhere" in worker.log()]


def test_a_job_that_must_not_run_twice_fails_when_its_pool_process_is_killed(world: TemporalWorld) -> None:
    result = world.task("parity.hold").apply_async(acks_late=False)
    early = world.task("temporal.early").delay()
    world.wait_for_start(early.id)
    world.release(result.id)

    active = world.app.control.inspect(timeout=5, limit=1).active()
    (pid,) = [task["worker_pid"] for tasks in active.values() for task in tasks if task["id"] == early.id]
    os.kill(pid, signal.SIGKILL)

    assert "WorkerLost" in world.wait_for_status(early.id, "failed")["error"]
    assert len(world.lines(early.id, "started")) == 1


def test_a_warm_shutdown_lets_jobs_end_and_takes_no_more(own_world: TemporalWorld) -> None:
    worker = own_world.worker("-c", "1")
    running = own_world.task("temporal.steady").delay()
    own_world.wait_for_start(running.id)

    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: "shutdown" in worker.log())
    waiting = own_world.task("parity.add").delay(1, 1)
    own_world.release(running.id)

    assert running.get(timeout=TIMEOUT) == 1
    wait_until(lambda: not worker.is_running, timeout=15)
    assert own_world.row(waiting.id)["status"] == "queued"
    own_world.worker("-c", "1")
    assert waiting.get(timeout=TIMEOUT) == 2
    own_world.wait_for_closed(running.id, "COMPLETED")
    assert own_world.lines(running.id, "started") == [""]


def test_a_cold_shutdown_gives_the_job_back_at_once(own_world: TemporalWorld) -> None:
    worker = own_world.worker("-c", "1")
    result = own_world.task("temporal.steady").delay()
    own_world.wait_for_start(result.id)

    os.kill(worker.pid, signal.SIGQUIT)
    wait_until(lambda: not worker.is_running, timeout=20)
    own_world.worker("-c", "1")
    own_world.wait_for_start(result.id, times=2)
    own_world.release(result.id)

    assert result.get(timeout=TIMEOUT) == 2


def test_a_lost_control_plane_takes_no_job_away(own_world: TemporalWorld) -> None:
    own_world.worker("-c", "2")
    result = own_world.task("temporal.steady").delay()
    own_world.wait_for_start(result.id)

    with psycopg.connect(own_world.environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    own_world.app.database.close()  # this process lost its own connections, too
    other = own_world.task("parity.add").delay(2, 3)

    assert other.get(timeout=TIMEOUT) == 5
    own_world.release(result.id)
    assert result.get(timeout=TIMEOUT) == 1
    assert len(own_world.lines(result.id, "started")) == 1
    wait_until(lambda: own_world.app.control.inspect(timeout=2, limit=1).ping(), timeout=TIMEOUT)


def test_a_terminated_workflow_ends_the_process_of_its_job(own_world: TemporalWorld) -> None:
    own_world.worker("-c", "1")
    result = own_world.task("temporal.steady").delay()
    own_world.wait_for_start(result.id)

    own_world.temporal.run_cli("workflow", "terminate", "--workflow-id", result.id)

    assert (
        own_world.task("parity.add").delay(1, 1).get(timeout=TIMEOUT) == 2
    )  # the only process is free again
    assert own_world.lines(result.id, "done") == []


def test_a_job_whose_worker_was_only_thought_dead_goes_on_there(own_world: TemporalWorld) -> None:
    worker = own_world.worker("-c", "1")
    result = own_world.task("temporal.steady").delay()
    own_world.wait_for_start(result.id)

    os.kill(worker.pid, signal.SIGSTOP)
    wait_until(
        lambda: (
            "TimeoutType" in str(own_world.cli("workflow", "describe", "--workflow-id", result.id))
            or "timeoutFailureInfo" in str(own_world.cli("workflow", "describe", "--workflow-id", result.id))
        ),
        timeout=TIMEOUT,
        every=0.5,
        message="Temporal has given the activity up",
    )
    os.kill(worker.pid, signal.SIGCONT)

    wait_until(lambda: "temporal.job_adopted" in worker.log(), timeout=TIMEOUT)
    own_world.release(result.id)
    assert result.get(timeout=TIMEOUT) == 1
    own_world.wait_for_closed(result.id, "COMPLETED")
    assert own_world.row(result.id)["attempt"] == 1


def test_a_job_that_another_worker_still_runs_waits_for_that_one(own_world: TemporalWorld) -> None:
    first = own_world.worker("-c", "1")
    result = own_world.task("temporal.steady").delay()
    own_world.wait_for_start(result.id)
    second = own_world.worker("-c", "1")

    os.kill(first.pid, signal.SIGSTOP)  # Temporal hears nothing of it; its pool process goes on
    try:
        wait_until(lambda: "temporal.job_held_elsewhere" in second.log(), timeout=TIMEOUT)
        own_world.release(result.id)

        assert result.get(timeout=TIMEOUT) == 1
        own_world.wait_for_closed(result.id, "COMPLETED")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert len(own_world.lines(result.id, "started")) == 1
    assert own_world.row(result.id)["attempt"] == 1


def test_a_job_that_was_taken_from_a_worker_is_stopped_there_and_runs_elsewhere(
    own_world: TemporalWorld,
) -> None:
    first = own_world.worker("-c", "1")
    result = own_world.task("temporal.steady").delay()
    own_world.wait_for_start(result.id)
    second = own_world.worker("-c", "1")
    os.kill(first.pid, signal.SIGSTOP)
    wait_until(lambda: "temporal.job_held_elsewhere" in second.log(), timeout=TIMEOUT)

    os.kill(first.pid, signal.SIGCONT)  # it hears that Temporal has given its activity up

    own_world.wait_for_start(result.id, times=2)
    own_world.release(result.id)
    assert result.get(timeout=TIMEOUT) == 2
    assert own_world.lines(result.id, "done") == [""]
    assert own_world.row(result.id)["attempt"] == 2


def test_temporal_may_restart_while_a_job_runs(own_world: TemporalWorld, server_folder: Path) -> None:
    port, database = free_port(), server_folder / f"restart-{os.getpid()}.db"
    settings = {**own_world.environment, "TEMPORAL_ADDRESS": f"127.0.0.1:{port}"}
    app = make_app(settings=load_settings(settings))
    app.finalize()
    with run_temporal(log_path=server_folder / "first.log", port=port, database=database):
        own_world.worker("-c", "1", TEMPORAL_ADDRESS=f"127.0.0.1:{port}")
        result = app.tasks["temporal.steady"].delay()
        own_world.wait_for_start(result.id)
    with run_temporal(log_path=server_folder / "second.log", port=port, database=database) as server:
        own_world.release(result.id)

        assert result.get(timeout=TIMEOUT) == 1
        wait_until(
            lambda: (
                '"COMPLETED"' in server.run_cli("workflow", "describe", "-w", result.id, "-o", "json")
                or "STATUS_COMPLETED" in server.run_cli("workflow", "describe", "-w", result.id, "-o", "json")
            ),
            timeout=60,
            every=0.5,
        )
        assert app.tasks["parity.add"].delay(1, 1).get(timeout=60) == 2
        app.delivery("temporal").client.close()
    app.database.close()
    assert len(own_world.lines(result.id, "started")) == 1


def test_a_worker_waits_for_temporal_and_says_so(own_world: TemporalWorld, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with ExitStack() as started:
        worker = own_world.worker_that_waits(address, tmp_path / "worker.log", started)
        assert f"Temporal at {address} cannot be reached" in worker.log()
        assert " ready." not in worker.log()

        with run_temporal(log_path=tmp_path / "late.log", port=int(address.partition(":")[2])):
            wait_until(lambda: " ready." in worker.log(), timeout=TIMEOUT)
            worker.stop()


def test_a_worker_that_starts_before_its_namespace_exists_polls_as_soon_as_it_does(
    own_world: TemporalWorld, tmp_path: Path
) -> None:
    namespace = f"late-{uuid.uuid4().hex[:8]}"
    own_world.environment["TEMPORAL_NAMESPACE"] = namespace
    with ExitStack() as started:
        worker = own_world.worker_that_waits(
            own_world.temporal.address, tmp_path / "worker.log", started, ready=f"no namespace '{namespace}'"
        )
        assert " ready." not in worker.log()

        own_world.temporal.run_cli("operator", "namespace", "create", "--namespace", namespace)

        wait_until(lambda: " ready." in worker.log(), timeout=TIMEOUT)
        app = make_app(settings=load_settings(own_world.environment))
        result = app.tasks["parity.add"].delay(2, 3)
        assert result.get(timeout=TIMEOUT) == 5
        app.close()
        worker.stop()


def test_a_worker_that_waits_for_temporal_can_be_stopped(own_world: TemporalWorld, tmp_path: Path) -> None:
    with ExitStack() as started:
        worker = own_world.worker_that_waits(f"127.0.0.1:{free_port()}", tmp_path / "worker.log", started)

        os.kill(worker.pid, signal.SIGTERM)

        wait_until(lambda: not worker.is_running, timeout=15)


#: More than travels inline: what is to be done is read in the row.
_TEXT = "x" * 300_000


def test_a_job_whose_row_cannot_be_read_when_it_begins_is_asked_for_again(
    own_world: TemporalWorld, postgres: PostgresServer
) -> None:
    with Proxy(postgres.port) as proxy:
        url = own_world.environment["DATABASE_URL"].replace(f"127.0.0.1:{postgres.port}", proxy.address)
        own_world.worker("-P", "threads", "-c", "1", DATABASE_URL=url)
        proxy.cut()
        result = own_world.task("temporal.length").delay(_TEXT)
        # A worker that missed its broker first takes nothing until it has it again, and tells nothing either.
        with suppress(AssertionError):
            wait_until(lambda: own_world.state(result.id).get("error"), timeout=TIMEOUT / 2, every=0.2)
        proxy.mend()

        assert result.get(timeout=TIMEOUT) == len(_TEXT)
        own_world.wait_for_closed(result.id, "COMPLETED")


@pytest.mark.parametrize(("how", "closed"), [("completed", "COMPLETED"), ("failed", "FAILED")])
def test_an_end_that_was_written_before_temporal_heard_of_it_is_told(
    own_world: TemporalWorld, how: str, closed: str
) -> None:
    """The worker that wrote it was killed in that moment; a row that has ended has no message any more."""
    result = own_world.task("temporal.length").delay(_TEXT)
    key = JobKey(tenant=SYSTEM_TENANT, job_id=job_id_for(result.id))
    started = Started(
        key=key, task_id=result.id, type="temporal.length", engine=Engine.TEMPORAL, queue="celery", worker="w@here",
        delivery=own_world.row(result.id)["delivery"],
    )  # fmt: skip
    ended: JobEvent = Completed(key=key, attempt=1, result=7)
    if how == "failed":
        ended = Failed(key=key, attempt=1, error="ValueError: on purpose", task_id=result.id)
    assert all(own_world.app.recorder.record(event).applied for event in (started, ended))

    own_world.worker("-c", "1")

    own_world.wait_for_closed(result.id, closed)
    last = json.dumps(own_world.history(result.id)[-1])
    assert ("on purpose" in last) == (how == "failed")
    if how == "completed":
        assert own_world.result(result.id)["result"] == 7

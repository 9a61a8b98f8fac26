"""Running a job again that has ended: the same job goes on, or a new one is made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobbridge.errors import CannotRetry, JobNotFound
from tests.parity import feature_tasks  # noqa: F401  # its handlers are the app's
from tests.parity.conftest import World
from tests.support import wait_until


def test_a_failed_job_runs_again_as_the_same_job(world: World) -> None:
    job = world.app.enqueue("parity.fails_until", {"name": "mended"}, tenant="acme", metadata={"invoice": 7})
    failed = world.wait_for_status(str(job.job_id), "failed")
    world.release(job.job_id, "mended")

    sent = world.app.retry_job(job.job_id, "acme")

    row = world.wait_for_status(str(job.job_id), "completed")
    assert sent.job_id == job.job_id
    assert row["attempt"] == failed["attempt"] + 1
    assert (row["tenant"], row["runner_type"]) == ("acme", world.engine)
    assert row["metadata"] == {"data": {"name": "mended"}, "invoice": 7}
    assert row["error"] is None
    assert world.lines(job.job_id, "once") == ["1"]  # its finished step was not run again


def test_of_two_who_retry_a_job_at_once_one_is_refused(world: World) -> None:
    job = world.app.enqueue("parity.fails_until", {"name": "mended"})
    world.wait_for_status(str(job.job_id), "failed")
    world.release(job.job_id, "mended")

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(world.app.retry_job, job.job_id) for _ in range(8)]
    refused = [future.exception() for future in asked if future.exception() is not None]

    assert len(refused) == 7
    assert {type(error) for error in refused} == {CannotRetry}
    assert world.wait_for_status(str(job.job_id), "completed")["attempt"] == 2


def test_what_completed_or_was_cancelled_runs_again_only_as_a_new_job(world: World) -> None:
    done = world.task("add").apply_async((1, 2))
    assert done.get(timeout=30) == 3
    world.wait_for_status(done.id, "completed")

    with pytest.raises(CannotRetry, match="is completed, and stays so"):
        world.app.retry_job(done.id)
    again = world.app.retry_job(done.id, as_new=True)

    assert str(again.job_id) != done.id
    assert again.metadata["retry_of"] == done.id
    assert world.wait_for_status(str(again.job_id), "completed")["result"] == 3


def test_a_job_that_goes_on_or_is_not_there_or_is_anothers_is_not_retried(world: World) -> None:
    job = world.app.enqueue("parity.hold", {}, tenant="acme")
    with pytest.raises(CannotRetry, match=str(job.job_id)):
        world.app.retry_job(job.job_id)
    with pytest.raises(JobNotFound):
        world.app.retry_job(job.job_id, "zeta")
    wait_until(lambda: world.lines(job.job_id, "hold.pids"), message="it holds")
    world.release(job.job_id)
    world.wait_for_status(str(job.job_id), "completed")


def test_a_completed_job_runs_again_from_a_step_on(world: World) -> None:
    job = world.app.enqueue("parity.stages", {})
    assert world.wait_for_status(str(job.job_id), "completed")["result"] == [1, 1, 1]

    with pytest.raises(CannotRetry, match="no step 'rendr'") as refused:
        world.app.retry_job(job.job_id, from_step="rendr")
    assert "fetch, render, mail" in refused.value.hint
    assert world.row(str(job.job_id))["status"] == "completed"
    world.app.retry_job(job.job_id, from_step="render")

    wait_until(lambda: world.row(str(job.job_id))["attempt"] == 2)
    assert world.wait_for_status(str(job.job_id), "completed")["result"] == [1, 2, 2]
    steps = [each for each in world.details(str(job.job_id)) if each["step_name"] != "attempt"]
    assert [(each["step_name"], each["status"], "superseded" in each["metadata"]) for each in steps] == [
        ("fetch", "completed", False),
        ("render", "cancelled", True),
        ("mail", "cancelled", True),
        ("render", "completed", False),
        ("mail", "completed", False),
    ]
    assert [each["result"] for each in steps] == [1, 1, 1, 2, 2]  # what was recorded can still be read

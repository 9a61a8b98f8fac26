"""One parent, many children: the same on both engines."""

from __future__ import annotations

import random
import uuid
from typing import Any

import psycopg
import pytest

from jobbridge import JobRunnerFactory, Outcome
from jobbridge.core import fanout
from jobbridge.core.fanout import Child, ChildCounts, FanOut
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId
from jobbridge.errors import CannotRetry, InvalidJobData, TenantRequired, UnsupportedOption
from jobbridge.store.tenants.tenants import TenantStore
from tests.parity import fan_out_tasks as fan_out_tasks  # declares the handlers
from tests.parity.conftest import World
from tests.support import wait_until


def send(world: World, name: str = "fan_out", /, tenant: str | None = None, **data: Any) -> Any:
    return world.task(name).apply_async(args=[data], tenant=tenant)


def children_of(world: World, result: Any) -> list[dict[str, Any]]:
    return world.rows("parent_id = %s", uuid.UUID(str(result)))


def row_key(world: World, result: Any) -> JobKey:
    row = world.row(str(result))
    return JobKey(tenant=TenantId(row["tenant"]), job_id=row["job_id"])


def test_a_parent_completes_when_all_its_children_have(world: World) -> None:
    result = send(world, children=7, concurrency=3)

    report = result.get(timeout=30)

    assert report["outcome"] == "complete"
    world.wait_for_status(str(result), "completed")
    assert {child["status"] for child in children_of(world, result)} == {"completed"}
    assert len(children_of(world, result)) == 7
    assert sorted(world.lines(result, "children")) == [str(number) for number in range(7)]
    assert len(world.lines(result, "fan_out")) == 1, "the handler ran once; its second attempt only collects"


def test_a_parent_of_none_is_complete(world: World) -> None:
    report = send(world, children=0).get(timeout=30)

    assert (report["outcome"], report["total"]) == ("complete", 0)


def test_a_parent_fails_when_some_children_did_and_says_which(world: World) -> None:
    result = send(world, children=5, each={"fails": [1, 3], "fails_once": [2]})

    with pytest.raises(Exception, match=r"Of 5 children 2 failed: 1 \(ValueError: child 1\); 3 \(ValueError"):
        result.get(timeout=30)

    row = world.wait_for_status(str(result), "failed")
    assert row["error"].startswith("ChildrenFailed: Of 5 children 2 failed")
    assert row["metadata"]["fan_out"] == {
        "outcome": "partial", "total": 5, "completed": 3, "failed": 2, "cancelled": 0, "expired": 0, "skipped": 0,
    }  # fmt: skip
    assert row["attempt"] == 2, "no attempt of the parent was spent on its children's failures"


def test_a_parent_shows_how_far_its_children_are_and_holds_no_worker(world: World) -> None:
    result = send(world, children=6, concurrency=6, each={"holds": [5]})

    def is_nearly_done() -> dict[str, Any]:
        world.app.fan_outs.attend(row_key(world, result))
        row = world.row(str(result))
        assert row["progress_message"] == "5 of 6 children have ended"
        return row

    row = wait_until(is_nearly_done)
    counts = world.app.fan_outs.counts(row_key(world, result))

    assert (row["status"], row["worker"], row["delivery"]) == ("processing", None, None)
    assert (counts.completed, counts.released, counts.outcome) == (5, 1, None)
    assert [d["status"] for d in world.details(str(result)) if d["step_name"] == "children"] == ["processing"]
    world.release(result)
    assert result.get(timeout=30)["outcome"] == "complete"
    (step,) = [d for d in world.details(str(result)) if d["step_name"] == "children"]
    assert (step["status"], step["result"]["completed"]) == ("completed", 6)


def test_retry_failed_runs_only_those_that_failed(world: World) -> None:
    result = send(world, children=4, each={"broken": [2]})
    world.wait_for_status(str(result), "failed")

    number = world.app.retry_failed(str(result))

    row = world.wait_for_status(str(result), "completed")
    assert number == 1
    assert row["result"]["completed"] == 4
    assert sorted(world.lines(result, "children")) == ["0", "1", "2", "2", "2", "3"]
    assert len(world.lines(result, "fan_out")) == 1
    assert len(children_of(world, result)) == 4
    with pytest.raises(CannotRetry, match="is completed, not failed"):
        world.app.retry_failed(str(result))


def test_to_run_a_parent_again_makes_no_second_children(world: World) -> None:
    result = send(world, children=3, each={"broken": [0]})
    world.wait_for_status(str(result), "failed")

    world.app.retry_job(str(result))

    world.wait_for_status(str(result), "completed")
    assert len(world.lines(result, "fan_out")) == 2
    assert sorted(world.lines(result, "children")) == ["0", "0", "0", "1", "2"], "what completed stays so"


def test_cancelling_a_parent_cancels_the_children_that_have_not_ended(world: World) -> None:
    result = send(world, children=9, concurrency=2, each={"holds": list(range(1, 9))})
    wait_until(lambda: "1" in world.lines(result, "children"))
    wait_until(lambda: world.app.fan_outs.counts(row_key(world, result)).completed == 1)

    assert world.app.cancel_job(str(result), reason="enough", cancelled_by="ada")

    def have_ended() -> ChildCounts:
        counts: ChildCounts = world.app.fan_outs.counts(row_key(world, result))
        assert not counts.unfinished
        return counts

    counts = wait_until(have_ended)
    assert (counts.completed, counts.cancelled) == (1, 8)
    cancelled = [row for row in children_of(world, result) if row["status"] == "cancelled"]
    assert {(row["cancel_reason"], row["cancelled_by"]) for row in cancelled} == {
        ("Its parent job was cancelled.", "ada")
    }
    assert world.row(str(result))["status"] == "cancelled"
    world.release(result)


def test_a_child_that_is_cancelled_counts_as_such(world: World) -> None:
    result = send(world, children=3, each={"holds": [1]})
    wait_until(lambda: "1" in world.lines(result, "children"))
    child = fanout.child_id(row_key(world, result), "1")

    world.app.cancel_job(child)

    row = world.wait_for_status(str(result), "failed")
    assert "Of 3 children 1 cancelled: 1 (cancelled)" in row["error"]
    world.release(result)
    assert world.app.retry_failed(str(result)) == 1
    row = world.wait_for_status(str(result), "completed")
    assert row["result"]["completed"] == 3


def test_a_parent_of_the_system_has_a_child_for_each_tenant(world: World) -> None:
    tenants = [f"tenant-{uuid.uuid4().hex[:8]}" for _ in range(5)]

    result = send(world, "daily", tenants=tenants)

    assert result.get(timeout=30)["completed"] == 5
    rows = children_of(world, result)
    assert {row["tenant"] for row in rows} == set(tenants)
    assert {row["result"] for row in rows} == set(tenants)
    assert world.row(str(result))["tenant"] == SYSTEM_TENANT


def test_the_child_of_a_suspended_tenant_is_skipped_and_its_parent_completes(world: World) -> None:
    kept, suspended = (TenantId(f"tenant-{uuid.uuid4().hex[:8]}") for _ in range(2))
    TenantStore(world.app.database).suspend(suspended, reason="unpaid")

    report = send(world, "daily", tenants=[kept, suspended]).get(timeout=30)

    assert (report["outcome"], report["completed"], report["skipped"]) == ("complete", 1, 1)


def test_children_may_have_children(world: World) -> None:
    result = send(world, "dynasty")

    assert result.get(timeout=30)["completed"] == 2
    grandchildren = [
        row for child in children_of(world, result) for row in children_of(world, child["job_id"])
    ]
    assert [row["status"] for row in grandchildren] == ["completed"] * 4


def test_what_fan_out_gave_must_be_returned(world: World) -> None:
    result = send(world, "forgetful")

    with pytest.raises(UnsupportedOption, match="did not return what it gave"):
        result.get(timeout=30)


def test_a_chain_goes_on_after_the_children(world: World) -> None:
    follow = (world.task("fan_out").s({"children": 2}) | world.task("echo").s()).apply_async()

    assert follow.get(timeout=30)["completed"] == 2


def test_any_task_can_be_a_child(world: World) -> None:
    items = [Child(data=[number], key=f"n{number}") for number in range(3)]

    job = world.app.fan_out(FanOut(task="parity.double", items=items, concurrency=2), tenant="acme")

    row = world.wait_for_status(str(job.job_id), "completed")
    assert (row["type"], row["tenant"], row["result"]["completed"]) == (fanout.FAN_OUT_TASK, "acme", 3)
    assert sorted(child["result"] for child in children_of(world, job.job_id)) == [0, 2, 4]
    assert {child["tenant"] for child in children_of(world, job.job_id)} == {"acme"}
    members = world.app.fan_outs.members(row_key(world, job.job_id))
    assert [(member.item_key, member.status) for member in members] == [
        (f"n{n}", "completed") for n in range(3)
    ]


@pytest.mark.long
def test_many_children_are_never_more_than_ten_at_a_time(own_world: World) -> None:
    world = own_world
    number = 1000 if world.engine is Engine.CELERY else 150  # 4 s, and 30 ms each
    world.worker("-c", "2")
    result = send(world, children=number, concurrency=10)
    most = 0

    def has_ended() -> dict[str, Any]:
        nonlocal most
        with psycopg.connect(world.database_url) as connection:
            [(open_jobs,)] = connection.execute(
                "SELECT count(*) FROM jobs WHERE type = 'parity.child' AND completed_at IS NULL"
            ).fetchall()
        most = max(most, open_jobs)
        row = world.row(str(result))
        assert row["status"] == "completed"
        return row

    row = wait_until(has_ended, timeout=100)

    assert 1 < most <= 10
    assert row["result"]["completed"] == number
    assert sorted(map(int, world.lines(result, "children"))) == list(range(number)), "each ran once"


@pytest.mark.long
def test_workers_that_are_killed_leave_a_fan_out_exact(own_world: World) -> None:
    world, chance = own_world, random.Random(7)
    worker = world.worker("-c", "2")
    result = send(world, children=60, concurrency=6)
    for number in (5, 15, 25, 35)[: 4 if world.engine is Engine.CELERY else 2]:
        wanted = number + chance.randrange(6)  # a killed worker of Temporal's is missed after 8 s
        wait_until(lambda wanted=wanted: len(world.lines(result, "children")) >= wanted, every=0.001)
        worker.kill()
        worker = world.worker("-c", "2")

    row = world.wait_for_status(str(result), "completed", timeout=100)

    children = children_of(world, result)
    assert (len(children), {child["status"] for child in children}) == (60, {"completed"})
    assert row["result"] == ChildCounts(completed=60).to_json()
    assert len(world.lines(result, "fan_out")) >= 1
    assert set(map(int, world.lines(result, "children"))) == set(range(60))


def test_a_runner_fans_out_within_the_callers_transaction(world: World) -> None:
    runner = JobRunnerFactory(world.app).get_runner()
    items = [{"number": number} for number in range(3)]

    with psycopg.connect(world.database_url) as connection, world.app.enqueue_on(connection):
        lost = runner.fan_out("parity.child", items)
        connection.rollback()
        job = runner.fan_out(
            "parity.child", items, {"tenant": "acme", "singleton_key": "nightly", "metadata": {"why": "test"}}
        )
        connection.commit()
    again = runner.fan_out("parity.child", items, {"tenant": "acme", "singleton_key": "nightly"})

    row = world.wait_for_status(str(job.job_id), "completed")
    assert (row["metadata"]["why"], row["result"]["completed"]) == ("test", 3)
    assert again.outcome in {Outcome.DEDUPLICATED, Outcome.CREATED}, "as it had ended or not"
    assert world.rows("job_id = %s", lost.job_id) == []
    with pytest.raises(InvalidJobData):
        runner.fan_out("parity.greet", [{"name": 1}], {"tenant": "acme"})
    with pytest.raises(TenantRequired):
        runner.fan_out("parity.for_tenant", [{}])

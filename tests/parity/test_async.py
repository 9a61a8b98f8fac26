"""Sending and waiting from asyncio, and tasks that are coroutines."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import psycopg
import pytest
from celery import chord, group
from celery.exceptions import SoftTimeLimitExceeded, TimeoutError
from celery.result import AsyncResult

from jobbridge.core.keys import Engine
from tests.parity import async_tasks  # noqa: F401  (shared tasks, of every app)
from tests.parity.conftest import World
from tests.support import wait_until


def test_a_coroutine_sends_and_waits_as_others_do(world: World) -> None:
    add, fails = world.task("add"), world.task("fail")

    async def main() -> tuple[Any, ...]:
        results = [await add.adelay(1, 2), await add.aapply_async((3,), {"y": 4}, priority=5)]
        sums = [await each.aget(timeout=30) for each in results]
        chained = await (await (add.s(1, 1) | add.s(2)).adelay()).aget(timeout=30)
        grouped = await (await world.app.arun(group(add.s(n, n) for n in range(3)).apply_async)).aget(
            timeout=30
        )
        with pytest.raises(ValueError, match="never"):
            await (await fails.adelay("never")).aget(timeout=30)
        with pytest.raises(ValueError, match="the first"):  # not what the second was told
            await (await (fails.si("the first") | add.si(1, 1)).adelay()).aget(timeout=30)
        with pytest.raises(ValueError, match="a part"):  # and not a ChordError
            await (
                await world.app.arun(chord([add.si(1, 1), fails.si("a part")], add.si(1, 1)).apply_async)
            ).aget(30)
        return sums, chained, grouped, results[1].id

    sums, chained, grouped, second = asyncio.run(main())

    assert (sums, chained, grouped) == ([3, 7], 4, [0, 2, 4])
    row = world.row(second)
    assert (row["priority"], row["metadata"]["data"]) == (5, {"args": [3], "kwargs": {"y": 4}})


def test_a_message_from_a_coroutine_is_the_one_that_delay_sends(own_world: World) -> None:
    add = own_world.task("add")
    stored = "SELECT queue, headers, content_type, body FROM jobbridge_broker.messages"

    def sent(result: AsyncResult) -> dict[str, Any]:
        row = own_world.row(result.id)
        own = {
            "job_id",
            "task_id",
            "external_id",
            "root_id",
            "created_at",
            "updated_at",
            "delivery",
            "message",
        }
        own |= {"undelivered_since", "relayed_at", "status", "external_run_id"}
        return {name: value for name, value in row.items() if name not in own}

    async def main() -> AsyncResult:
        await add.adelay(1, 2)  # the first one to a queue goes another way
        return await add.adelay(1, 2)

    asynchronous = asyncio.run(main())
    add.delay(1, 2)
    synchronous = add.delay(1, 2)

    assert sent(asynchronous) == sent(synchronous)
    if own_world.engine is Engine.CELERY:
        of = {each["headers"]["id"]: each for each in own_world.looking.rows(stored)}
        ours, theirs = of[asynchronous.id], of[synchronous.id]
        assert ours["headers"].keys() == theirs["headers"].keys()
        assert (ours["queue"], ours["body"], ours["content_type"]) == (
            theirs["queue"],
            theirs["body"],
            theirs["content_type"],
        )


def test_a_thousand_coroutines_wait_by_one_connection_and_leave_nothing(own_world: World) -> None:
    never = own_world.task("add").apply_async((1, 1), countdown=3600)
    others = [own_world.app.AsyncResult(f"{number:032x}") for number in range(999)]
    before = threading.active_count()

    def sessions() -> int:
        counted = "SELECT count(*) AS number FROM pg_stat_activity WHERE datname = current_database()"
        return int(own_world.looking.rows(counted)[0]["number"])

    quiet = sessions()

    async def main() -> tuple[int, int]:
        waiting = [asyncio.create_task(each.aget()) for each in (never, *others)]
        awaiting = "SELECT count(*) AS number FROM job_awaiters WHERE until > now()"
        while own_world.looking.rows(awaiting)[0]["number"] != 1:
            await asyncio.sleep(0.02)
        during = sessions(), threading.active_count()
        with pytest.raises(TimeoutError):
            await never.aget(timeout=0.1)
        for each in waiting:
            each.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(each) for each in ended} == {asyncio.CancelledError}
        return during

    during, threads = asyncio.run(main())

    assert during - quiet <= 3, "one that listens, one that asks, and one that has sent"
    assert threads <= before + 1
    wait_until(lambda: sessions() <= quiet, message="its sessions have ended with the loop")
    assert own_world.looking.rows("SELECT * FROM job_awaiters") == []


def test_a_coroutine_sends_in_its_own_transaction(world: World) -> None:
    add = world.task("add")

    async def main() -> tuple[Any, Any]:
        async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
            async with world.app.transaction(connection):
                discarded = await add.adelay(1, 1)
            await connection.rollback()
            with world.app.transaction(connection):
                kept = await add.adelay(2, 2)
                assert world.rows("task_id = %s", kept.id) == [], "it is not committed"
            await connection.commit()
            return discarded, await kept.aget(timeout=60)

    discarded, value = asyncio.run(main())

    assert value == 4
    assert world.rows("task_id = %s", discarded.id) == []


def test_progress_is_told_as_it_goes_on(world: World) -> None:
    told: list[tuple[str, str | None]] = []

    async def main() -> None:
        result = await world.task("long").adelay({})
        async for each in result.aprogress(interval=0.05):
            told.append((each.status, each.message))
            if each.percent:
                world.app.cancel_job(result.id)

    asyncio.run(main())

    assert told[-1][0] == "cancelled"
    assert any(message and message.startswith("part") for _, message in told)
    assert len(told) == len(set(told)), "only what has changed is told"


def test_progress_is_told_without_looking(world: World) -> None:
    told: list[str] = []

    async def main() -> str:
        result = await world.task("stepwise").adelay({"steps": 6})
        async for each in result.aprogress(interval=3600):
            if each.message:
                told.append(each.message)
                world.release(result, f"seen {each.message}")  # only then it goes on
            else:
                assert each.status != "completed"
        return str(result.id)

    job_id = asyncio.run(main())

    assert list(dict.fromkeys(told)) == [f"part {number}" for number in range(6)]
    followers = "SELECT * FROM job_followers WHERE job_id::text = %s"
    wait_until(lambda: world.looking.rows(followers, (job_id,)) == [], message="it has left")


def test_progress_that_nobody_closes_keeps_no_session(world: World) -> None:
    left = []
    follows = """
        SELECT query FROM pg_stat_activity
        WHERE position('job_followers' IN query) > 0 AND pid <> pg_backend_pid() AND datname = current_database()
    """

    async def main() -> None:
        result = await world.task("add").aapply_async((1, 1), countdown=3600)
        left.append(result.aprogress(interval=3600))
        assert (await anext(left[0])).status == "scheduled"

    asyncio.run(main())

    wait_until(lambda: world.looking.rows(follows) == [], message="its session has ended with the loop")
    left.clear()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_coroutines_run_on_one_loop_and_are_ended_at_their_await(own_world: World, pool: str) -> None:
    own_world.worker("-P", pool, "-c", "1")
    first, second = (own_world.task("async_add").delay(1, n).get(timeout=60) for n in (2, 3))
    assert (first[0], second[0]) == (3, 4)
    assert first[1:] == second[1:], "one loop, in one thread, of one process"

    flaky = own_world.task("async_flaky").delay()
    retries, sent = flaky.get(timeout=30)
    assert retries == 1, "autoretry_for is around what it awaits"
    assert str(own_world.row(sent)["parent_id"]) == flaky.id

    caught, limited = (
        own_world.task("async_limited").delay(True),
        own_world.task("async_limited").delay(False),
    )
    assert caught.get(timeout=30) == "caught"
    with pytest.raises(SoftTimeLimitExceeded):
        limited.get(timeout=30)
    assert own_world.lines(limited, "own_cleaned") == [""]
    grouped = own_world.task("async_limited_group").delay()
    with pytest.raises(SoftTimeLimitExceeded):
        grouped.get(timeout=30)
    assert own_world.lines(grouped, "child_cleaned") == [""]

    sleeper = own_world.task("async_sleeper").delay()
    wait_until(lambda: own_world.lines(sleeper, "child") == [] and own_world.lines(sleeper, "began"))
    own_world.app.cancel_job(sleeper.id, reason="enough")
    own_world.wait_for_status(sleeper.id, "cancelled")
    for name in ("own", "child", "left_behind"):
        wait_until(lambda name=name: own_world.lines(sleeper, f"{name}_cleaned") == [""], message=name)
        assert own_world.lines(sleeper, name) == ["CancelledError"]
    assert own_world.task("async_add").delay(5, 5).get(timeout=60)[0] == 10, "the worker goes on"

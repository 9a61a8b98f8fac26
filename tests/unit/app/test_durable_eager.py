"""Durable calls of jobs that run eagerly: nothing sleeps, nothing is waited for, calls run in place."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest

import jobbridge
from jobbridge import TIMED_OUT, Celery, NoCurrentJob, current_job
from jobbridge.settings import load_settings

undone: list[str] = []


def undo(name: str) -> None:
    undone.append(name)


def make_app() -> Celery:
    app = Celery("eager", settings=load_settings({}), set_as_current=False)
    app.conf.task_always_eager = True

    @app.task(name="eager.double")
    def double(number: int) -> int:
        return 2 * number

    @app.task(name="eager.all")
    def everything(fails: bool = False) -> list[Any]:
        ctx = current_job()
        ctx.on_failure(undo, "first")
        ctx.on_failure(undo, "second")
        ctx.sleep(86_400)
        if fails:
            raise ValueError("no")
        return [
            ctx.run("step", lambda: 1),
            ctx.wait_for("event", timeout=60) is TIMED_OUT,
            ctx.call("eager.double", 4),
            ctx.gather(double.s(1), double.s(2)),
            ctx.version("v", 3),
        ]

    return app


def test_nothing_is_waited_for() -> None:
    assert make_app().tasks["eager.all"].delay().get() == [1, True, 8, [2, 4], 3]


def test_what_was_done_is_undone() -> None:
    undone.clear()

    with pytest.raises(ValueError, match="no"):
        make_app().tasks["eager.all"].delay(fails=True).get()
    assert undone == ["second", "first"]


def test_a_job_that_runs_in_a_coroutines_place_is_none_itself() -> None:
    async def test() -> list[Any]:
        result: list[Any] = make_app().tasks["eager.all"].delay().get()
        return result

    assert asyncio.run(test())[0] == 1


def test_outside_of_a_job_there_is_none() -> None:
    with pytest.raises(NoCurrentJob):
        current_job()


def test_timed_out_is_false_and_the_same_everywhere() -> None:
    assert not TIMED_OUT
    assert pickle.loads(pickle.dumps(TIMED_OUT)) is copy.deepcopy(TIMED_OUT) is TIMED_OUT
    assert jobbridge.TIMED_OUT is TIMED_OUT

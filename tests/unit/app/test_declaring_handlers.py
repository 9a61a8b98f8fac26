from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery.schedules import crontab
from pydantic import BaseModel

from jobbridge import Celery, JobContext, job
from jobbridge.app.execute.handlers import declared
from jobbridge.app.periodic import beat_schedule
from jobbridge.errors import DuplicateHandler, UnsupportedOption
from jobbridge.settings import load_settings


@pytest.fixture(autouse=True)
def _nothing_stays_declared() -> Iterator[None]:
    before = {spec.name: spec for spec in declared}
    yield
    declared.clear()
    for spec in before.values():
        declared.register(spec)


def make_app(**environment: str) -> Celery:
    return Celery("declaring", settings=load_settings(environment), set_as_current=False)


class Data(BaseModel):
    name: str


def test_one_declaration_makes_the_task_with_its_limits() -> None:
    @job("declared.one", timeout=timedelta(seconds=30), queue="slow", priority=7)
    def one(ctx: JobContext, data: Data) -> None:
        """Do one thing.

        At length.
        """

    task: Any = make_app().tasks["declared.one"]
    spec = declared.get("declared.one")

    assert (spec.description, spec.data_model, spec.is_async) == ("Do one thing.", Data, False)
    assert (task.soft_time_limit, task.time_limit, task.max_retries) == (30, 40, 2)
    assert task._get_exec_options()["queue"] == "slow"
    assert task._get_exec_options()["priority"] == 7


def test_a_second_handler_of_a_name_is_refused() -> None:
    @job("declared.twice")
    def first(ctx: JobContext, data: dict[str, Any]) -> None: ...

    with pytest.raises(DuplicateHandler, match=r"first.*second"):

        @job("declared.twice")
        def second(ctx: JobContext, data: dict[str, Any]) -> None: ...


def test_a_function_that_takes_no_data_is_no_handler() -> None:
    with pytest.raises(TypeError, match=r"must take \(ctx, data\)"):

        @job("declared.wrong")
        def wrong(ctx: JobContext) -> None: ...


@pytest.mark.parametrize("schedule", ["*/15 * * * *", "24 hours", timedelta(minutes=5)])
def test_a_schedule_is_what_beat_sends(schedule: str | timedelta) -> None:
    @job("declared.daily", schedule=schedule)
    def daily(ctx: JobContext, data: dict[str, Any]) -> None: ...

    app = make_app()
    app.finalize()

    entry = app.conf.beat_schedule["declared.daily"]
    assert (entry["task"], entry["args"]) == ("declared.daily", ({},))
    assert entry["schedule"] == beat_schedule(schedule)


def test_a_cron_expression_is_not_taken_for_an_interval() -> None:
    assert beat_schedule("*/15 * * * *") == crontab(minute="*/15")


@pytest.mark.parametrize(
    "wrong", ["* * * *", "0 0 1 1 * 2026", "61 * * * *", "often", "0 hours", timedelta(0)]
)
def test_a_schedule_that_cannot_be_honoured_is_refused_where_it_is_declared(wrong: str | timedelta) -> None:
    with pytest.raises(UnsupportedOption) as caught:

        @job("declared.never", schedule=wrong)
        def never(ctx: JobContext, data: dict[str, Any]) -> None: ...

    assert "five cron fields" in caught.value.hint
    assert not declared.has("declared.never")


def test_a_schedule_for_a_handler_that_needs_a_tenant_is_refused() -> None:
    with pytest.raises(UnsupportedOption, match="belong to nobody"):

        @job("declared.whose", schedule="0 1 * * *", tenant_required=True)
        def whose(ctx: JobContext, data: dict[str, Any]) -> None: ...


def test_a_handler_of_the_enterprise_edition_is_no_task_of_the_community_edition() -> None:
    @job("declared.enterprise", enterprise_only=True)
    def enterprise(ctx: JobContext, data: dict[str, Any]) -> None: ...

    assert "declared.enterprise" not in make_app().tasks
    assert "declared.enterprise" in make_app(EDITION="enterprise").tasks

"""A user's project, for `test_typed_surface`: type checkers read it, nobody runs it.

`#: TYPE` is what mypy reveals on that line, `#! CODE` what it complains of.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import reveal_type

from pydantic import BaseModel

import jobbridge
from jobbridge import Celery, Child, FanOut, JobContext, RetryPolicy, ScheduleOptions, get_job_runner, job

app = Celery("shop", include=["shop.receipts"])
app.conf.timezone = "Europe/Berlin"


class Order(BaseModel):
    number: int


@job("receipt", retry=RetryPolicy(max_attempts=5, first=timedelta(seconds=2)), schedule="0 3 * * *")
def receipt(ctx: JobContext, order: Order) -> dict[str, int]:
    ctx.progress(1, 2, "half")
    with ctx.step("render", key="one") as step:
        reveal_type(step)  #: jobbridge.store.jobs.steps.Step
    with ctx.transaction() as connection:
        connection.execute("SELECT 1")
    reveal_type(ctx.tenant_id)  #: jobbridge.core.keys.TenantId
    reveal_type(ctx.engine)  #: jobbridge.core.keys.Engine
    reveal_type(ctx.attempt)  #: int
    reveal_type(ctx.is_cancelled)  #: bool
    reveal_type(ctx.settings)  #: jobbridge.settings.Settings
    ctx.nothing_of_that_name()  #! attr-defined
    return {"order": order.number}


@job("receipts")
def receipts(ctx: JobContext, data: dict[str, int]) -> FanOut:
    orders: Iterator[Child] = (Child(data={"number": number}) for number in range(data["many"]))
    return ctx.fan_out(receipt, orders, concurrency=5)


@job("fetch")
async def fetch(ctx: JobContext, data: Order) -> list[str]:
    return [str(data.number)]


@job("describe")
def describe(ctx: JobContext, data: Order) -> Order:
    return data


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="shop.tell", bind=True, max_retries=3)
def tell(self: object, text: str, times: int = 1) -> None: ...


@app.task(acks_late=True)
def shout(text: str) -> str:
    return text.upper()


@job("too-few")  #! arg-type
def too_few(ctx: JobContext) -> None: ...


def send() -> None:
    reveal_type(receipt.delay(Order(number=1)).get(timeout=3))  #: dict[str, int]
    reveal_type(receipt.delay({"number": 1}).id)  #: str
    reveal_type(receipt.delay(number=1).job)  #: jobbridge.app.options.Sent
    receipt.delay(3)  #! arg-type
    reveal_type(receipts.delay({"many": 3}).get())  #: dict[str, Any]
    reveal_type(describe.delay({"number": 1}).get())  #: dict[str, Any]
    reveal_type(fetch.apply_async([{"number": 1}], countdown=3, engine="temporal").get())  #: list[str]

    reveal_type(add)  #: jobbridge.app.types.Task[[x: int, y: int], int]
    reveal_type(add(1, 2))  #: int
    reveal_type(add.delay(1, y=2).get())  #: int
    add.delay(1)  #! call-arg
    add.delay("1", 2)  #! arg-type
    reveal_type(add.s(1) | shout.s())  #: jobbridge.app.types.Signature[str]
    reveal_type((add.si(1, 2) | shout.s()).delay().get())  #: str
    reveal_type(tell)  #: jobbridge.app.types.Task[[text: str, times: int =], None]
    reveal_type(tell.apply_async(("x",), eta=datetime.now(UTC)).get())  #: None
    tell.apply_async(("x",), countdown="soon")  #! arg-type
    tell.delay()  #! call-arg
    reveal_type(app.send_task("elsewhere"))  #: jobbridge.app.types.Result[Any]


def schedule() -> None:
    runner = get_job_runner()
    reveal_type(runner)  #: jobbridge.runners.runner.JobRunner
    options = ScheduleOptions(tenant="north", priority=7)
    sent = runner.schedule_job("receipt", {"number": 3}, options)
    reveal_type(sent)  #: jobbridge.runners.types.ScheduledJob
    reveal_type(runner.schedule_recurring_job("receipt", {}, "0 3 * * *").job_id)  #: uuid.UUID
    reveal_type(runner.fan_out("receipt", [{"number": 3}]))  #: jobbridge.runners.types.ScheduledJob
    reveal_type(runner.get_job_status("id"))  #: jobbridge.runners.types.JobStatusReport | None
    reveal_type(runner.cancel_job("id"))  #: bool
    reveal_type(runner.register_handler("fetch", fetch).delay({}).id)  #: str


async def schedule_from_a_loop() -> None:
    runner = get_job_runner()
    reveal_type(await runner.aschedule_job("receipt", {"number": 3}))  #: jobbridge.runners.types.ScheduledJob
    await runner.aschedule_job("receipt", {}, run_at=datetime.now(UTC))  #! call-arg


def misspell() -> None:
    runner = get_job_runner()
    jobbridge.schedule_jobs()  #! attr-defined
    runner.schedule_job("receipt", {}, run_at=datetime.now(UTC))  #! call-arg
